"""Sheets of exemplars of an index: one a latent to look at, and the picture of a model card.

A sheet has a latent's strongest images as they are, the same with all but the firing patches darkened, then
one image a decile of activation. Latents are spread evenly over activated frequency; dead and rare ones are
left out. Knows an index and pictures; knows no models.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sae.concepts.concept import Concept, Exemplar
from sae.concepts.index import ConceptIndex
from sae.images import open_thumbnail
from sae.storage import replacing

SIDE, GAP, LINE = 140, 4, 16
DARK = 0.2


def spread_over_frequency(index: ConceptIndex, n: int) -> list[int]:
    """`n` latents from the most to the least frequent, in even steps."""
    alive = np.flatnonzero(~index.dead & ~index.rare)
    if not len(alive):
        return []
    order = alive[np.argsort(-index.frequency[alive], kind="stable")]
    places = np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).astype(int))
    return order[places].tolist()


def lit(picture: Image.Image, exemplar: Exemplar, grid: tuple[int, int]) -> Image.Image:
    """The picture, dark where the latent does not fire."""
    light = np.full(grid, DARK, np.float32)
    for patch, value in zip(exemplar.patches, exemplar.values, strict=True):
        light[divmod(patch, grid[1])] = DARK + (1 - DARK) * value / max(exemplar.values)
    mask = Image.fromarray(light).resize(picture.size, Image.Resampling.NEAREST)
    return Image.fromarray((np.asarray(picture) * np.asarray(mask)[..., None]).astype(np.uint8))


def sheet(index: ConceptIndex, latent: int) -> Image.Image:
    """The sheet of one latent."""
    concept, deciles = index.concept(latent), index.deciles(latent)
    top = concept.exemplars["top"]
    rows = [(top, False), (top, True), ([tenth[0] for tenth in deciles if tenth], True)]
    wide = max(len(row) for row, _ in rows)
    made = Image.new("RGB", (wide * (SIDE + GAP), 2 * LINE + 3 * (SIDE + LINE + GAP)), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(12)
    for place, text in enumerate(_heading(concept)):
        draw.text((GAP, place * LINE), text, fill="black", font=font)
    for number, (exemplars, dark) in enumerate(rows):
        y = 2 * LINE + number * (SIDE + LINE + GAP)
        for column, exemplar in enumerate(exemplars):
            picture = _picture(index, exemplar)
            x = column * (SIDE + GAP)
            made.paste(lit(picture, exemplar, index.grid) if dark else picture, (x, y))
            text = f"{exemplar.activation:.2f} {exemplar.label[:16]}"
            draw.text((x, y + SIDE), text, fill="black", font=font)
    return made


def _heading(concept: Concept) -> Sequence[str]:
    score = concept.statistics.get("monosemanticity", float("nan"))
    classes = ", ".join(f"{one.label} {one.share:.0%}" for one in concept.classes[:4])
    return (
        f"latent {concept.latent}   {concept.name or 'no name'} ({concept.name_confidence:.2f})   fires "
        f"on {concept.frequency:.1%} of images   MonoSemanticity {score:.2f}   entropy "
        f"{concept.entropy:.2f}",
        f"tokens by class: {classes or 'no labels'}",
    )


def _picture(index: ConceptIndex, exemplar: Exemplar) -> Image.Image:
    return open_thumbnail(index.thumbnail(exemplar.image_id)).resize((SIDE, SIDE))


def draw_for_card(index: ConceptIndex, path: Path, n: int = 8, each: int = 6) -> None:
    """Write the picture of a model card: `n` concepts, named ones if there are any, a row each.

    An index without pictures gets none, and loses an older one.
    """
    path.unlink(missing_ok=True)
    alive = spread_over_frequency(index, len(index))
    chosen = [latent for latent in alive if index.names[latent]] or alive
    if not chosen or not index.has_thumbnails:
        return
    places = np.unique(np.linspace(0, len(chosen) - 1, min(n, len(chosen))).astype(int))
    high = LINE + SIDE + GAP
    made = Image.new("RGB", (each * (SIDE + GAP), len(places) * high), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(12)
    for row, place in enumerate(places):
        latent = chosen[place]
        text = f"latent {latent}   {index.names[latent]}".rstrip()
        draw.text((GAP, row * high), text, fill="black", font=font)
        for column, exemplar in enumerate(index.exemplars(latent)[:each]):
            shown = lit(_picture(index, exemplar), exemplar, index.grid)
            made.paste(shown, (column * (SIDE + GAP), row * high + LINE))
    with replacing(path) as temporary:
        made.save(temporary, "WEBP", quality=80)
