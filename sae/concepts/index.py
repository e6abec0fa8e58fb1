"""ConceptIndex: what each latent stands for over a data set, as stored beside an SAE.

Knows the index's files and how to answer "what is latent 12?". Knows nothing of models or screens;
`sae.concepts.build` makes an index, `sae.concepts.naming` names it.

Files, in the folder `concepts/` of an artifact:
    index.json                format, data set, number of images and tokens, patch grid, SAE's hash
    statistics.safetensors    one row a latent
    exemplars.safetensors     image numbers, activations and firing patches by level
    names.json                names, where they come from, scores
    images.safetensors        WebP thumbnails of the exemplar images, with captions.json
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae.concepts import files
from sae.hub import local_folder

LEVELS = ("top", "middle", "low")
"""Exemplars are the strongest images, those around the median, and the weakest that still fire."""
DENSE_TOKEN_FREQUENCY = 0.1
"""A latent that fires on more than this share of tokens is called dense ("always on")."""


@dataclass(frozen=True)
class Exemplar:
    """An image on which a concept fires."""

    image_id: int
    activation: float
    """Maximum over the image's tokens."""
    label: str
    """Caption of the image, "" if it has none."""
    patches: list[int]
    """Row-major numbers of the strongest firing patches, at most 16."""
    values: list[float]
    """Their activations."""


@dataclass(frozen=True)
class Concept:
    """A latent with its name, statistics and exemplars (statistics as in PatchSAE, section 3)."""

    latent: int
    name: str
    name_source: str
    name_score: float
    frequency: float
    """Share of images with any activation above 0."""
    token_frequency: float
    """Share of tokens with an activation above 0."""
    mean_activation: float
    """Mean over the images in which it fires of the mean over all tokens."""
    max_activation: float
    """Largest activation on any token of the data set."""
    entropy: float
    """Entropy in nats of the labels of the top exemplars, weighted by activation; -1 if unknown."""
    dead: bool
    dense: bool
    histogram: list[int]
    """Number of images by maximum activation."""
    histogram_edges: list[float]
    """len(histogram) + 1 logarithmically spaced edges."""
    exemplars: dict[str, list[Exemplar]]


class ConceptIndex:
    """Every concept of one SAE over one data set. Arrays have one entry per latent (d_sae).

    frequency, token_frequency, mean_activation, max_activation, entropy: float32; dead, dense: bool.
    """

    def __init__(self, content: files.IndexContent) -> None:
        self._content = content
        statistics = content.statistics
        self.frequency: np.ndarray = statistics["frequency"]
        self.token_frequency: np.ndarray = statistics["token_frequency"]
        self.mean_activation: np.ndarray = statistics["mean_activation"]
        self.max_activation: np.ndarray = statistics["max_activation"]
        self.entropy: np.ndarray = statistics["entropy"]
        self.dead: np.ndarray = self.frequency == 0
        self.dense: np.ndarray = self.token_frequency > DENSE_TOKEN_FREQUENCY
        self.names: list[str] = content.names["names"]
        self.name_sources: list[str] = content.names["sources"]
        self.name_scores: np.ndarray = np.asarray(content.names["scores"], dtype=np.float32)
        self._row = {int(number): row for row, number in enumerate(content.images["image_ids"])}

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
        """Read the index of an artifact: "bundled", a folder or a Hub id.

        Raises ArtifactError if there is none or if it is damaged, naming the file.
        """
        wanted = [f"{files.FOLDER}/{name}" for name in files.FILES]
        folder = local_folder(
            id_or_dir,
            files=wanted,
            revision=revision,
            subfolder=subfolder,
            token=token,
            local_files_only=local_files_only,
        )
        return cls(files.read(folder / files.FOLDER))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the index into `folder`/concepts, beside the SAE it belongs to."""
        files.write(Path(folder) / files.FOLDER, self._content)

    def __len__(self) -> int:
        return len(self.frequency)

    @property
    def n_images(self) -> int:
        """Images that the statistics were gathered over."""
        return self._content.header["n_images"]

    @property
    def n_tokens(self) -> int:
        """Tokens that the statistics were gathered over."""
        return self._content.header["n_tokens"]

    @property
    def data(self) -> str:
        """The data set's name."""
        return self._content.header["data"]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        rows, columns = self._content.header["grid"]
        return rows, columns

    @property
    def sae_sha256(self) -> str:
        """Hash of the SAE weights that this index describes."""
        return self._content.header["sae_sha256"]

    def concept(self, latent: int) -> Concept:
        """All that is known of one latent; IndexError if there is no such latent."""
        if not 0 <= latent < len(self):
            raise IndexError(f"Latent {latent}: this index has latents 0 to {len(self) - 1}.")
        return Concept(
            latent=latent,
            name=self.names[latent],
            name_source=self.name_sources[latent],
            name_score=float(self.name_scores[latent]),
            frequency=float(self.frequency[latent]),
            token_frequency=float(self.token_frequency[latent]),
            mean_activation=float(self.mean_activation[latent]),
            max_activation=float(self.max_activation[latent]),
            entropy=float(self.entropy[latent]),
            dead=bool(self.dead[latent]),
            dense=bool(self.dense[latent]),
            histogram=self._content.statistics["histogram"][latent].tolist(),
            histogram_edges=histogram_edges().tolist(),
            exemplars={
                level: self._exemplars(latent, number) for number, level in enumerate(LEVELS)
            },
        )

    def thumbnail(self, image_id: int) -> bytes:
        """The WebP thumbnail of an exemplar image; KeyError if it is none."""
        row = self._row[image_id]
        start, stop = self._content.images["offsets"][row : row + 2]
        return self._content.images["webp"][start:stop].tobytes()

    def exemplar_table(self, level: str = "top") -> tuple[np.ndarray, np.ndarray]:
        """Image numbers int32 (d_sae, n), -1 for none, and activations float32 of one level."""
        number = LEVELS.index(level)
        table = self._content.exemplars
        return table["image_ids"][:, number], table["activations"][:, number]

    def with_names(
        self, names: list[str], sources: list[str], scores: list[float]
    ) -> "ConceptIndex":
        """A copy with other names; one entry per latent each, "" and 0 for nameless ones."""
        if not len(names) == len(sources) == len(scores) == len(self):
            raise ValueError(f"Names: got {len(names)}, expected {len(self)}, one per latent.")
        fresh = {"names": names, "sources": sources, "scores": scores}
        return ConceptIndex(self._content._replace(names=fresh))

    def _exemplars(self, latent: int, level: int) -> list[Exemplar]:
        table = self._content.exemplars
        found = []
        for column, number in enumerate(table["image_ids"][latent, level]):
            if number < 0:
                break
            at = (latent, level, column)
            values = table["values"][at].astype(np.float32)
            fires = values > 0
            found.append(
                Exemplar(
                    image_id=int(number),
                    activation=float(table["activations"][at]),
                    label=self._content.captions[self._row[int(number)]],
                    patches=table["patches"][at][fires].tolist(),
                    values=values[fires].tolist(),
                )
            )
        return found


N_BINS = 32


def histogram_edges() -> np.ndarray:
    """N_BINS + 1 edges, half an octave apart, from 2^-10 to 2^6; the same for every latent, so that
    histograms of two data sets can be added."""
    return 2.0 ** (np.arange(N_BINS + 1) / 2 - 10)
