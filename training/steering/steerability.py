"""How well each latent of an SAE steers CLIP: which words and pictures it is measured on, and what is told.

Knows word lists, held-out pictures and where the figures are stored; the measure itself is
`sae.steering.clip` (Joseph et al., 2025).
"""

from pathlib import Path

import numpy as np
from PIL import Image

from sae.artifact import WEIGHTS
from sae.concepts.build.naming import WORDS, read_words
from sae.concepts.index import ConceptIndex
from sae.hub import local_folder
from sae.steering.clip import Steerability
from sae.storage import sha256
from sae.world.backgrounds import BACKGROUNDS
from sae.world.tasks import HELD_OUT_SEED
from training.data.sources import open_source
from training.world.generator import images
from training.world.words import nouns

MORE_WORDS = Path(__file__).parent / "more_words.txt"
STEERABLE = 0.1
"""S above which Joseph et al. call a latent steerable."""
WORLD_SEED = HELD_OUT_SEED + 8800


def words_for(data: str, file: Path | None) -> list[str]:
    """The words that steering may raise: of the user's file; else the nouns of the emoji world, all that
    its CLIP knows, or the shipped vocabulary, over 5,000 words, as many as the paper's."""
    if file is not None:
        return read_words(file)
    if data == "world":
        return sorted({*nouns(), *BACKGROUNDS})
    return list(dict.fromkeys([*read_words(WORDS), *read_words(MORE_WORDS)]))


def pictures(data: str, n: int) -> list[Image.Image]:
    """`n` held-out images of `data`, as training/train.py takes it."""
    if data == "world":
        return [Image.fromarray(picture) for picture in images(WORLD_SEED, n)[0]]
    _, source = open_source(data, seed=0, n_eval=n)
    return [source.load(source.at(place, 0)) for place in range(min(n, len(source.numbers)))]


def index_of(sae: str, folder: Path | None) -> ConceptIndex:
    """The index of an SAE: the one in `folder`, where figures are stored, or else that beside the SAE.

    ArtifactError for one of other weights.
    """
    index = ConceptIndex.beside(folder) if folder is not None and folder.is_dir() else None
    if folder is None or index is None:
        return ConceptIndex.from_pretrained(sae)
    index.check_sae(sha256(local_folder(sae, files=[WEIGHTS]) / WEIGHTS), folder)
    return index


def summary(measured: Steerability, words: list[str]) -> dict[str, object]:
    """What is printed: the distribution, as the paper's notebooks give it."""
    s = measured.steerability[~np.isnan(measured.steerability)]
    power = measured.power[~np.isnan(measured.power)]
    best = np.argsort(-np.nan_to_num(measured.steerability, nan=-1.0))[:5]
    return {
        "n_latents": len(s),
        "n_images": measured.n_images,
        "n_words": measured.n_words,
        "steerability_mean": round(float(s.mean()), 4),
        "steerability_median": round(float(np.median(s)), 4),
        f"share_above_{STEERABLE}": round(float((s > STEERABLE).mean()), 4),
        "power_mean": round(float(power.mean()), 4),
        "coverage": round(measured.coverage, 4),
        "words_covered": len(np.unique(measured.word[measured.word >= 0])),
        "best": {int(latent): words[measured.word[latent]] for latent in best},
    }
