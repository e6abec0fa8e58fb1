"""ConceptIndex: what each latent stands for over a data set, as stored beside an SAE.

Knows the index's content and how to answer "what is latent 12?" and "which latents are like this?". Knows
nothing of models but the text tower that a search by meaning asks; `sae.concepts.build` makes an index,
`sae.concepts.content` says how it lies on disk.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int32

from sae.artifact import CONFIG, WEIGHTS
from sae.concepts.atlas import Atlas
from sae.concepts.concept import (
    LEVELS,
    ClassCount,
    ClassTable,
    Concept,
    Exemplar,
    ExemplarTable,
    Hit,
    Neighbour,
    latent_number,
)
from sae.concepts.content import (
    AGAIN,
    FILES,
    FOLDER,
    LAYOUT,
    NOTES,
    IndexContent,
    check,
    read,
    recover,
    write,
)
from sae.concepts.notebook import html_table
from sae.concepts.notes import (
    Note,
    Owner,
    checked,
    joined,
    read_notes,
    rows_of,
    save_notes,
    with_own_names,
)
from sae.concepts.search import Searcher
from sae.concepts.statistics import HISTOGRAM, histogram_edges, required, table
from sae.errors import ArtifactError, HubFileNotFound
from sae.hub import local_folder, push_folder
from sae.interop import presets
from sae.lazy import lazy
from sae.storage import read_json

if TYPE_CHECKING:
    import pandas
    from PIL import Image

    from sae.backbones import Backbone

__all__ = ["LEVELS", "Concept", "ConceptIndex", "Exemplar", "Hit", "histogram_edges"]

DENSE_TOKEN_FREQUENCY = 0.1
"""A latent that fires on more than this share of tokens is called dense ("always on")."""
RARE_IMAGES = 10
"""A latent that fires on fewer images than this, but not on none, is called rare."""
_OF_CONCEPT = {field.name for field in fields(Concept)}


class ConceptIndex:
    """Every concept of one SAE over one data set. Arrays have one entry per latent (d_sae).

    frequency, token_frequency, mean_activation, max_activation, entropy: float32; dead, rare, dense:
    bool. `statistics` has these and all others by name, float32.
    """

    def __init__(self, content: IndexContent) -> None:
        self._content, self._header = content, content.header
        self.statistics: dict[str, np.ndarray] = {
            name: array for name, array in content.statistics.items() if name != HISTOGRAM
        }
        self.frequency = self.statistics["frequency"]
        self.token_frequency = self.statistics["token_frequency"]
        self.mean_activation = self.statistics["mean_activation"]
        self.max_activation = self.statistics["max_activation"]
        self.entropy = self.statistics["entropy"]
        n_active = np.rint(self.frequency.astype(np.float64) * self.n_images)
        self.dead: Bool[np.ndarray, " d_sae"] = n_active == 0
        self.rare: Bool[np.ndarray, " d_sae"] = (n_active > 0) & (n_active < RARE_IMAGES)
        self.dense: Bool[np.ndarray, " d_sae"] = self.token_frequency > DENSE_TOKEN_FREQUENCY
        self.notes: dict[int, Note] = checked(
            Path("names.json"), content.names.get(NOTES, []), len(self)
        )
        """What people say of concepts: their own names, notes and pins, by latent."""
        self.model_names: list[str] = content.names["names"]
        """The names that the index was built with, whatever people call its concepts."""
        shown = with_own_names(content.names, self.notes)
        self.names: list[str] = shown["names"]
        """People's own names, and the model's where there is none."""
        self.name_sources: list[str] = shown["sources"]
        self.name_scores: np.ndarray = np.asarray(shown["scores"], dtype=np.float32)
        self.name_confidences = np.asarray(shown["confidences"], dtype=np.float32)

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
        """Read the index of an artifact: "bundled", "photos", a folder, a Hub id or a preset of ours.

        Raises ArtifactError if there is none, if it is damaged, or if it describes other weights
        than the SAE beside it, naming the file.
        """
        where: dict[str, Any] = {"revision": revision, "subfolder": subfolder, "token": token}
        where["local_files_only"] = local_files_only
        wanted = [f"{FOLDER}/{name}" for name in FILES]
        # one call, and so one commit: a branch may move while it is read
        folder = local_folder(
            presets.artifact_of(id_or_dir),
            files=wanted,
            optional=[CONFIG, f"{FOLDER}/{LAYOUT}"],
            **where,
        )
        index = cls(read(folder / FOLDER))
        if (folder / CONFIG).is_file():
            recorded = read_json(folder / CONFIG).get("sha256")
            index.check_sae(recorded.get(WEIGHTS, "") if isinstance(recorded, dict) else "", folder)
        return index

    @classmethod
    def beside(cls, sae: str | Path, **where: Any) -> "ConceptIndex | None":
        """The index of an SAE, wherever `SparseAutoencoder.from_pretrained(sae, **where)` reads it.

        None if the SAE has no index, as those of other libraries have none. Whether it has one must
        be known: HubError where the Hub cannot be asked. ArtifactError as in `from_pretrained`.
        """
        if presets.is_preset(sae) and presets.find(str(sae)).format != "patchlens":
            return None
        wanted = f"{FOLDER}/{FILES[0]}"
        try:
            folder = local_folder(presets.artifact_of(sae), files=[wanted], **where)
        except HubFileNotFound:
            return None
        recover(folder / FOLDER)
        return cls.from_pretrained(sae, **where) if (folder / wanted).is_file() else None

    def check_sae(self, sha256: str, folder: Path | None = None) -> None:
        """Raise ArtifactError if this index describes other weights than those of this hash."""
        own = self.sae_sha256
        if own and sha256 and own != sha256:
            raise ArtifactError(
                (folder or Path()) / FOLDER / "index.json",
                f"the concept index describes SAE weights {own[:12]}",
                f"those of the SAE, {sha256[:12]}",
                AGAIN,
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the index into `folder`/concepts, beside the SAE it belongs to."""
        target = Path(folder) / FOLDER
        check(target, self._content)
        write(target, self._content)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Save, render the card and upload into a repository of its own; returns the commit's
        address. `options`: those of `sae.hub.push_folder`, which pushes an index with its SAE."""
        options = {"commit_message": "Upload a concept index", **options}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(folder, repo_id, **options)

    @property
    def n_images(self) -> int:
        """Images that the statistics were gathered over."""
        return self._header["n_images"]

    @property
    def n_unreadable(self) -> int:
        """Images of the data set that could not be opened, and are in no statistic."""
        return self._header["n_unreadable"]

    @property
    def n_tokens(self) -> int:
        """Tokens that the statistics were gathered over."""
        return self._header["n_tokens"]

    @property
    def data(self) -> str:
        """The data set's name."""
        return self._header["data"]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        rows, columns = self._header["grid"]
        return rows, columns

    @property
    def sae_sha256(self) -> str:
        """Hash of the SAE weights that this index describes."""
        return self._header["sae_sha256"]

    @property
    def text_tower(self) -> dict[str, Any] | None:
        """Id and revision of the backbone whose text a search by meaning uses; None for none."""
        return self._header["text_tower"]

    @property
    def embedder(self) -> str | None:
        """The image encoder that the statistic "monosemanticity" was measured with; None for none."""
        return self._header["embedder"]

    @property
    def neuron_monosemanticity(self) -> dict[str, float] | None:
        """ "mean" and "best" of the backbone's raw neurons over the same images; None for none."""
        return self._header.get("neuron_monosemanticity")

    @property
    def monosemanticity_beside(self) -> dict[str, dict[str, float]]:
        """ "mean" and "best" over the same images of what nobody trained, by name: "chance", and the
        dictionaries of `sae.metrics.untrained`, as sparse as the SAE; {} for none."""
        return self._header.get("monosemanticity_beside") or {}

    @property
    def has_thumbnails(self) -> bool:
        """Whether pictures of the exemplars were kept."""
        return len(self._content.images["webp"]) > 0

    def has_thumbnail(self, image_id: int) -> bool:
        """Whether a picture of this exemplar image was kept; False if the image is no exemplar."""
        return self._exemplars.has_thumbnail(image_id)

    @property
    def class_names(self) -> list[str]:
        """The data set's classes; empty if it has no labels."""
        return self._content.class_names

    @property
    def embeddings(self) -> Float16[np.ndarray, "d_sae d"]:
        """Unit vectors float16 (d_sae, d) of the exemplars' lit regions; d is 0 without text."""
        return self._content.embeddings["latents"]

    def __len__(self) -> int:
        return len(self.frequency)

    def concept(self, latent: int) -> Concept:
        """All that is known of one latent; IndexError if there is no such latent."""
        latent = self._latent(latent)
        statistics = {name: float(array[latent]) for name, array in self.statistics.items()}
        note = self.notes.get(latent, Note())
        return Concept(
            latent=latent,
            name=self.names[latent],
            name_source=self.name_sources[latent],
            name_score=float(self.name_scores[latent]),
            name_confidence=float(self.name_confidences[latent]),
            **{name: statistics[name] for name in statistics if name in _OF_CONCEPT},
            dead=bool(self.dead[latent]),
            rare=bool(self.rare[latent]),
            dense=bool(self.dense[latent]),
            histogram=self._content.statistics["histogram"][latent].tolist(),
            histogram_edges=histogram_edges().tolist(),
            exemplars={level: self.exemplars(latent, level) for level in LEVELS},
            statistics=statistics,
            classes=self.classes(latent),
            neighbours=self.neighbours(latent),
            cofiring=self.neighbours(latent, by="cofiring"),
            model_name=self.model_names[latent],
            note=note.note,
            pinned=note.pinned,
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

    def caption(self, image_id: int) -> str:
        """What the data set says of an exemplar image; KeyError if the image is no exemplar."""
        return self._exemplars.caption(image_id)

    def thumbnail(self, image_id: int) -> bytes:
        """The WebP thumbnail of an exemplar image, a grey tile if the index holds none of it;
        KeyError if the image is no exemplar."""
        return self._exemplars.thumbnail(image_id)

    def exemplar_table(
        self, level: str = "top"
    ) -> tuple[Int32[np.ndarray, "d_sae n"], Float32[np.ndarray, "d_sae n"]]:
        """Image numbers int32 (d_sae, n), -1 for none, and activations float32: "top" exemplars, or
        "deciles", decile by decile."""
        n_top, table = self._content.header["n_top"], self._content.exemplars
        part = {"top": slice(0, n_top), "deciles": slice(n_top, None)}[level]
        return table["image_ids"][:, part], table["activations"][:, part]

    def classes(self, latent: int, k: int = 8) -> list[ClassCount]:
        """The k classes with most tokens above tau, falling; [] without labels."""
        return self.class_table.largest(self._latent(latent), k)

    @lazy
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

    @lazy
    def atlas(self) -> Atlas:
        """Where the concepts lie on maps of likeness, and the groups that they form there."""
        return Atlas(self._content, self.dead)

    def with_layout(self) -> "ConceptIndex":
        """A copy that holds all of `atlas`, so that nobody has to wait for it again."""
        return ConceptIndex(self._content._replace(layout=self.atlas.table()))

    def search(
        self, query: "str | Image.Image", k: int = 5, *, backbone: "Backbone | None" = None
    ) -> list[Hit]:
        """The k concepts that a text (or a picture) is about, best first: see `Searcher.search`."""
        return self.searcher.search(query, k, backbone=backbone)

    @lazy
    def _exemplars(self) -> ExemplarTable:
        return ExemplarTable(self._content)

    @lazy
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
        """A copy with other names of the model's; one entry per latent each, "" and 0 for nameless
        ones. People's own stay (`with_notes`)."""
        sure = [0.0] * len(names) if confidences is None else confidences
        if not len(names) == len(sources) == len(scores) == len(sure) == len(self):
            raise ValueError(f"Names: got {len(names)}, expected {len(self)}, one per latent.")
        rows = {"names": names, "sources": sources, "scores": scores, "confidences": sure}
        fresh: dict[str, list[Any]] = {key: list(row) for key, row in rows.items()}
        if self.notes:
            fresh[NOTES] = rows_of(self.notes)
        return ConceptIndex(self._content._replace(names=fresh))

    def with_notes(
        self, notes: str | Path | Mapping[str, Any], *, by_number: bool = False
    ) -> "ConceptIndex":
        """A copy with people's own names, notes and pins, as the page saves them: a file, or its content.

        Own names stand in `names`, in searches and tables; the model's stay in `model_names`. They are
        added to those that are there; where both say something of a concept, the new ones say it.
        ArtifactError for a file that is damaged, or of another SAE: `by_number` takes its numbers all the
        same.
        """
        added = joined(self.notes, read_notes(notes, self._owner, by_number=by_number))
        names = {**self._content.names, NOTES: rows_of(added)}
        return ConceptIndex(self._content._replace(names=names))

    def save_notes(self, file: str | Path) -> None:
        """Write people's own names, notes and pins as a file that `with_notes` and the page read."""
        save_notes(file, self.notes, self._owner)

    @property
    def _owner(self) -> Owner:
        return Owner("", self.sae_sha256, len(self))

    def with_statistics(self, extra: Mapping[str, np.ndarray]) -> "ConceptIndex":
        """A copy that carries further statistics, one number a latent each; NaN for unknown."""
        added = {name: np.asarray(array, np.float32) for name, array in extra.items()}
        for name, array in added.items():
            if array.shape != (len(self),) or name in (*required(), HISTOGRAM, ""):
                raise ValueError(
                    f"Statistic {name!r} of shape {array.shape}: expected ({len(self)},), one "
                    f"number a latent, and none of the names {', '.join(required())}."
                )
        return ConceptIndex(self._content._replace(statistics=self._content.statistics | added))

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a latent, by its number: name, where it is from, flags, every statistic."""
        import pandas

        columns = {
            "name": self.names,
            "name_source": self.name_sources,
            "name_score": self.name_scores,
            "name_confidence": self.name_confidences,
            "dead": self.dead,
            "rare": self.rare,
            "dense": self.dense,
            **{
                one.name: self.statistics[one.name]
                for one in table()
                if one.name in self.statistics
            },
            **self.statistics,
            "model_name": self.model_names,
            "note": [self.notes.get(latent, Note()).note for latent in range(len(self))],
            "pinned": [self.notes.get(latent, Note()).pinned for latent in range(len(self))],
        }
        return pandas.DataFrame(columns, index=pandas.RangeIndex(len(self), name="latent"))

    def __repr__(self) -> str:
        named = sum(map(bool, self.names))
        return f"ConceptIndex({len(self):,} latents, {named:,} named, over {self.data})"

    def _repr_html_(self) -> str:
        """A short table of the surest names with their strongest images."""
        return html_table(self)

    def _latent(self, latent: int) -> int:
        return latent_number(latent, len(self))
