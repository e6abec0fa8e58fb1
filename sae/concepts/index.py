"""ConceptIndex: what each latent stands for over a data set, as stored beside an SAE.

Knows the index's content and how to answer "what is latent 12?" and "which latents are like this?". Knows
nothing of models but the text tower that a search by meaning asks; `sae.concepts.build.image_pass` and its
neighbours make an index, `sae.concepts.files` says how it lies on disk.
"""

import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sae.artifact import CONFIG, WEIGHTS
from sae.concepts import files
from sae.concepts.build.gathering import histogram_edges
from sae.concepts.checks import AGAIN, check
from sae.concepts.class_table import ClassTable
from sae.concepts.concept import LEVELS, ClassCount, Concept, Exemplar, Hit, Neighbour
from sae.concepts.content import STATISTICS, IndexContent
from sae.concepts.described import Described
from sae.concepts.exemplar_table import ExemplarTable
from sae.concepts.search import Searcher
from sae.concepts.table import index_frame, index_html
from sae.hub import HubError, local_folder, push_folder
from sae.interop import presets
from sae.storage import ArtifactError, read_json

if TYPE_CHECKING:
    import pandas
    from PIL import Image

    from sae.backbones import Backbone

__all__ = ["LEVELS", "Concept", "ConceptIndex", "Exemplar", "Hit", "histogram_edges"]

DENSE_TOKEN_FREQUENCY = 0.1
"""A latent that fires on more than this share of tokens is called dense ("always on")."""
RARE_IMAGES = 10
"""A latent that fires on fewer images than this, but not on none, is called rare."""


class ConceptIndex(Described):
    """Every concept of one SAE over one data set. Arrays have one entry per latent (d_sae).

    frequency, token_frequency, mean_activation, max_activation, entropy: float32; dead, rare, dense:
    bool. `statistics` has these and all others by name, float32.
    """

    def __init__(self, content: IndexContent) -> None:
        self._content = content
        self.statistics: dict[str, np.ndarray] = {
            name: array for name, array in content.statistics.items() if name != "histogram"
        }
        self.frequency = self.statistics["frequency"]
        self.token_frequency = self.statistics["token_frequency"]
        self.mean_activation = self.statistics["mean_activation"]
        self.max_activation = self.statistics["max_activation"]
        self.entropy = self.statistics["entropy"]
        n_active = np.rint(self.frequency.astype(np.float64) * self.n_images)
        self.dead: np.ndarray = n_active == 0
        self.rare: np.ndarray = (n_active > 0) & (n_active < RARE_IMAGES)
        self.dense: np.ndarray = self.token_frequency > DENSE_TOKEN_FREQUENCY
        self.names: list[str] = content.names["names"]
        self.name_sources: list[str] = content.names["sources"]
        self.name_scores: np.ndarray = np.asarray(content.names["scores"], dtype=np.float32)
        self.name_confidences = np.asarray(content.names["confidences"], dtype=np.float32)

    @classmethod
    def from_pretrained(
        cls,
        id_or_dir: str | Path,
        *,
        revision: str | None = None,
        subfolder: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> "ConceptIndex":
        """Read the index of an artifact: "bundled", a folder, a Hub id or a preset of ours.

        Raises ArtifactError if there is none, if it is damaged, or if it describes other weights
        than the SAE beside it, naming the file.
        """
        id_or_dir = presets.artifact_of(id_or_dir)
        access = {"revision": revision, "subfolder": subfolder, "token": token}
        access["local_files_only"] = local_files_only
        wanted = [f"{files.FOLDER}/{name}" for name in files.FILES]
        folder = local_folder(id_or_dir, files=wanted, **access)
        index = cls(files.read(folder / files.FOLDER))
        try:
            beside = local_folder(id_or_dir, files=[CONFIG], **access) / CONFIG
        except HubError:
            return index
        if beside.is_file():
            recorded = read_json(beside).get("sha256")
            index.check_sae(recorded.get(WEIGHTS, "") if isinstance(recorded, dict) else "", folder)
        return index

    def check_sae(self, sha256: str, folder: Path | None = None) -> None:
        """Raise ArtifactError if this index describes other weights than those of this hash."""
        own = self.sae_sha256
        if own and sha256 and own != sha256:
            raise ArtifactError(
                (folder or Path()) / files.FOLDER / "index.json",
                f"the concept index describes SAE weights {own[:12]}",
                f"those of the SAE, {sha256[:12]}",
                AGAIN,
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the index into `folder`/concepts, beside the SAE it belongs to."""
        target = Path(folder) / files.FOLDER
        check(target, self._content)
        files.write(target, self._content)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Save, render the card and upload into a repository of its own; returns the commit's
        address. `options`: those of `sae.hub.push_folder`, which pushes an index with its SAE."""
        options = {"commit_message": "Upload a concept index", **options}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(folder, repo_id, **options)

    def __len__(self) -> int:
        return len(self.frequency)

    def concept(self, latent: int) -> Concept:
        """All that is known of one latent; IndexError if there is no such latent."""
        latent = self._latent(latent)
        return Concept(
            latent=latent,
            name=self.names[latent],
            name_source=self.name_sources[latent],
            name_score=float(self.name_scores[latent]),
            name_confidence=float(self.name_confidences[latent]),
            **{
                name: float(self.statistics[name][latent])
                for name in (
                    *("frequency", "token_frequency", "mean_activation", "patch_mean_activation"),
                    *("max_activation", "entropy", "decoder_norm"),
                )
            },
            dead=bool(self.dead[latent]),
            rare=bool(self.rare[latent]),
            dense=bool(self.dense[latent]),
            histogram=self._content.statistics["histogram"][latent].tolist(),
            histogram_edges=histogram_edges().tolist(),
            exemplars={level: self.exemplars(latent, level) for level in LEVELS},
            statistics={name: float(array[latent]) for name, array in self.statistics.items()},
            classes=self.classes(latent),
            neighbours=self.neighbours(latent),
            cofiring=self.neighbours(latent, by="cofiring"),
        )

    def exemplars(self, latent: int, level: str = "top") -> list[Exemplar]:
        """Images on which a latent fires, strongest first: of level "top", "middle" or "low"."""
        latent = self._latent(latent)
        if level not in LEVELS:
            raise ValueError(f"Exemplars have the levels {', '.join(LEVELS)}; got {level!r}.")
        return self._exemplars.level(latent, level)

    def deciles(self, latent: int) -> list[list[Exemplar]]:
        """Ten lists: exemplars drawn by chance from each tenth of the images in which a latent
        fires, from the strongest tenth to the weakest."""
        return self._exemplars.deciles(self._latent(latent))

    def thumbnail(self, image_id: int) -> bytes:
        """The WebP thumbnail of an exemplar image, a grey tile if the index holds none of it;
        KeyError if the image is no exemplar."""
        return self._exemplars.thumbnail(image_id)

    def exemplar_table(self, level: str = "top") -> tuple[np.ndarray, np.ndarray]:
        """Image numbers int32 (d_sae, n), -1 for none, and activations float32: "top" exemplars, or
        "deciles", decile by decile."""
        n_top, table = self._content.header["n_top"], self._content.exemplars
        part = {"top": slice(0, n_top), "deciles": slice(n_top, None)}[level]
        return table["image_ids"][:, part], table["activations"][:, part]

    def classes(self, latent: int, k: int = 8) -> list[ClassCount]:
        """The k classes with most tokens above tau, falling; [] without labels."""
        return self.class_table.largest(self._latent(latent), k)

    @cached_property
    def class_table(self) -> ClassTable:
        """How classes and latents go together (PatchSAE, equation 5)."""
        return ClassTable(self._content)

    def neighbours(self, latent: int, k: int = 12, *, by: str = "decoder") -> list[Neighbour]:
        """The nearest latents, by "decoder" cosine or by "cofiring", nearest first."""
        if by not in ("decoder", "cofiring"):
            raise ValueError(f"Neighbours are by 'decoder' or by 'cofiring'; got {by!r}.")
        latent, table = self._latent(latent), self._content.neighbours
        ids = table[f"{by}_ids"][latent]
        scores = table["decoder_cosines" if by == "decoder" else "cofiring_scores"][latent]
        return [
            Neighbour(int(other), self.names[other], float(score))
            for other, score in zip(ids[:k], scores[:k], strict=True)
            if other >= 0
        ]

    def search(
        self, query: "str | Image.Image", k: int = 5, *, backbone: "Backbone | None" = None
    ) -> list[Hit]:
        """The k concepts that a text (or a picture) is about, best first: see `Searcher.search`."""
        return self.searcher.search(query, k, backbone=backbone)

    @cached_property
    def _exemplars(self) -> ExemplarTable:
        return ExemplarTable(self._content)

    @cached_property
    def searcher(self) -> Searcher:
        """Every way to search: by name, meaning, image, region, latent and statistic."""
        return Searcher(self)

    def with_names(
        self,
        names: Sequence[str],
        sources: Sequence[str],
        scores: Sequence[float],
        confidences: Sequence[float] | None = None,
    ) -> "ConceptIndex":
        """A copy with other names; one entry per latent each, "" and 0 for nameless ones."""
        sure = [0.0] * len(names) if confidences is None else confidences
        if not len(names) == len(sources) == len(scores) == len(sure) == len(self):
            raise ValueError(f"Names: got {len(names)}, expected {len(self)}, one per latent.")
        fresh = {"names": names, "sources": sources, "scores": scores, "confidences": sure}
        fresh = {key: list(row) for key, row in fresh.items()}
        return ConceptIndex(self._content._replace(names=fresh))

    def with_statistics(self, extra: Mapping[str, np.ndarray]) -> "ConceptIndex":
        """A copy that carries further statistics, one number a latent each; NaN for unknown."""
        added = {name: np.asarray(array, np.float32) for name, array in extra.items()}
        for name, array in added.items():
            if array.shape != (len(self),) or name in (*STATISTICS, "histogram", ""):
                raise ValueError(
                    f"Statistic {name!r} of shape {array.shape}: expected ({len(self)},), one "
                    f"number a latent, and none of the names {', '.join(STATISTICS)}."
                )
        return ConceptIndex(self._content._replace(statistics=self._content.statistics | added))

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a latent: name, flags and every statistic."""
        return index_frame(self)

    def __repr__(self) -> str:
        named = sum(map(bool, self.names))
        return f"ConceptIndex({len(self):,} latents, {named:,} named, over {self.data})"

    def _repr_html_(self) -> str:
        return index_html(self)

    def _latent(self, latent: int) -> int:
        if not 0 <= latent < len(self):
            raise IndexError(f"Latent {latent}: this index has latents 0 to {len(self) - 1}.")
        return int(latent)
