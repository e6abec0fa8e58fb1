"""From what a pass gathered to a whole index: second look, neighbours, embeddings, header.

Knows how the parts fit together; the work is in the parts. Names come afterwards (`naming`).
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image

from sae.backbones import Backbone
from sae.concepts.build.gathering import NEURONS, Gathered
from sae.concepts.build.image_pass import Data, Embed, gather, settings_for, untrained_beside
from sae.concepts.build.second_look import LitFeatures, look_again, regions_of, with_decoder
from sae.concepts.build.summary import (
    classes_of,
    cofiring_neighbours,
    exemplar_numbers,
    exemplars_of,
    statistics_of,
)
from sae.concepts.content import FORMAT, IndexContent
from sae.concepts.index import ConceptIndex
from sae.concepts.nearest import nearest_rows
from sae.metrics.untrained import CHANCE, NAMES, Untrained
from sae.model import SparseAutoencoder

N_NEIGHBOURS = 12
N_LIT = 9
"""Exemplars of a latent whose lit regions its embedding is the mean of."""

Progress = Callable[[Iterable], Iterable]


def build_index(
    data: Data,
    backbone: Backbone,
    sae: SparseAutoencoder,
    *,
    sae_sha256: str = "",
    batch: int = 32,
    embed: Embed | None = None,
    embedder: str | None = None,
    thumbnails: bool = True,
    n_lit: int = N_LIT,
    progress: Progress = lambda things: things,
    **settings: float,
) -> ConceptIndex:
    """The index of `sae` over `data`, without names, in this process.

    `embed` turns images into vectors by any encoder, `embedder` says which: the index then carries
    the statistic "monosemanticity", and beside it that of raw neurons, of dictionaries that nobody
    trained and of chance. `settings` are those of
    `Settings` (tau, n_top, …). `progress` wraps the walks over batches and over exemplar images.
    Images that cannot be opened are left out and counted; ValueError if none can, or if there are
    none.
    """
    chosen = settings_for(data, sae, **settings)
    width = None if embed is None else embedding_width(embed)
    beside = () if embed is None else untrained_beside(data, backbone, sae)
    gathered = Gathered(chosen, d_embedding=width, beside=sizes_beside(sae, beside))
    walk = progress(batches_of(len(data), batch))
    gather(data, backbone, sae, gathered, walk, embed=embed, beside=beside)
    return assemble(
        gathered,
        data,
        backbone,
        sae,
        sae_sha256=sae_sha256,
        embedder=embedder,
        thumbnails=thumbnails,
        n_lit=n_lit,
        progress=progress,
    )


def batches_of(n: int, batch: int) -> list[Int64[np.ndarray, " _"]]:
    """All image numbers, in batches whose limits do not depend on who computes which."""
    return [np.arange(start, min(start + batch, n)) for start in range(0, n, batch)]


def sizes_beside(sae: SparseAutoencoder, beside: Sequence[Untrained]) -> dict[str, int]:
    """Units by name of all that is measured beside the latents of `sae`."""
    return {NEURONS: sae.cfg.d_in} | {one.name: one.n_units for one in beside}


def embedding_width(embed: Embed) -> int:
    """Width of an encoder's vectors."""
    with torch.inference_mode():
        return int(embed([Image.new("RGB", (64, 64))]).shape[1])


def assemble(
    gathered: Gathered,
    data: Data,
    backbone: Backbone,
    sae: SparseAutoencoder,
    *,
    sae_sha256: str = "",
    embedder: str | None = None,
    thumbnails: bool = True,
    n_lit: int = N_LIT,
    progress: Progress = lambda things: things,
) -> ConceptIndex:
    """The index of all that was gathered, without names; exemplar images are opened once more.

    Where the backbone has text, the lit regions of the `n_lit` strongest exemplars of every latent
    (0: none, no search by meaning) run through it.
    """
    if not gathered.n_images:
        raise ValueError(f"{data.name}: no image could be opened; the index needs at least one.")
    exemplars, d_sae = exemplars_of(gathered), gathered.settings.d_sae
    lit = LitFeatures(backbone, regions_of(exemplars, n_lit) if backbone.has_text else {}, d_sae)
    pictures = look_again(
        data,
        backbone,
        exemplar_numbers(exemplars),
        thumbnails=thumbnails,
        see=lit.see,
        progress=progress,
    )
    rows = sae.W_dec.detach().float().cpu().numpy()
    content = IndexContent(
        header=_header(gathered, data, backbone, sae_sha256, embedder, n_lit > 0),
        statistics=statistics_of(gathered, rows),
        exemplars=exemplars,
        classes=classes_of(gathered),
        neighbours=_neighbours(gathered, sae),
        embeddings={"latents": with_decoder(lit.result(), rows).astype(np.float16)},
        images=pictures.images,
        names={
            "names": [""] * d_sae,
            "sources": [""] * d_sae,
            "scores": [0.0] * d_sae,
            "confidences": [0.0] * d_sae,
        },
        captions=pictures.captions,
        class_names=list(data.classes),
    )
    return ConceptIndex(content)


def _header(
    gathered: Gathered,
    data: Data,
    backbone: Backbone,
    sae_sha256: str,
    embedder: str | None,
    text: bool,
) -> dict[str, object]:
    n_images, n_tokens, n_patches, n_unreadable = gathered.counts["totals"].tolist()
    tower = {"id": backbone.id, "revision": backbone.revision}
    return {
        "format": FORMAT,
        "data": data.name,
        "n_images": n_images,
        "n_unreadable": n_unreadable,
        "n_tokens": n_tokens,
        "n_patches": n_patches,
        "grid": list(backbone.patch_grid),
        "d_sae": gathered.settings.d_sae,
        "sae_sha256": sae_sha256,
        "tau": gathered.settings.tau,
        "n_top": gathered.settings.n_top,
        "text_tower": tower if text and backbone.has_text else None,
        "embedder": embedder if gathered.meters else None,
        "neuron_monosemanticity": _of_units(gathered, NEURONS),
        "monosemanticity_beside": _beside(gathered),
    }


def _beside(gathered: Gathered) -> dict[str, dict[str, float]] | None:
    """Scores over the same images that those of latents are to be held against."""
    if "latents" not in gathered.meters or gathered.n_images < 2:
        return None
    chance = gathered.meters["latents"].chance()
    rows = {name: _of_units(gathered, name) for name in gathered.meters if name in NAMES}
    return {CHANCE: {"mean": chance, "best": chance}} | {
        name: row for name, row in rows.items() if row
    }


def _of_units(gathered: Gathered, name: str) -> dict[str, float] | None:
    if name not in gathered.meters:
        return None
    summary = gathered.meters[name].summary().unfiltered
    return {"mean": summary.mean, "best": summary.best} if summary.n else None


def _neighbours(gathered: Gathered, sae: SparseAutoencoder) -> dict[str, np.ndarray]:
    near, cosines = nearest_rows(sae.W_dec, N_NEIGHBOURS)
    strongest = gathered.tables["cofiring"].state()
    filled = strongest["ranks"][0] != np.uint64(2**64 - 1)
    both, scores = cofiring_neighbours(
        strongest["latents"][0][filled], gathered.settings.d_sae, N_NEIGHBOURS
    )
    return {
        "decoder_ids": near,
        "decoder_cosines": cosines.astype(np.float16),
        "cofiring_ids": both,
        "cofiring_scores": scores.astype(np.float16),
    }
