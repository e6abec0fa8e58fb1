"""The photographs that the page opens with, one of each kind of thing, as small as all that is carried.

Knows which files they are and whose. Writes `examples/` beside the SAE; see `sae.ui.gallery`.
"""

from pathlib import Path

from PIL import Image

from sae.images import open_image
from sae.ui.gallery import write_examples

EXAMPLES = (
    ("Dalmatian", "dalmatian/09"),
    ("Schooner", "schooner/00"),
    ("Motorbike", "Motorbikes/00"),
    ("Grand piano", "grand_piano/10"),
    ("Elephant", "elephant/05"),
    ("Sunflower", "sunflower/14"),
    ("Butterfly", "butterfly/11"),
    ("Strawberry", "strawberry/07"),
    ("Helicopter", "helicopter/09"),
    ("Llama", "llama/09"),
    ("Pizza", "pizza/01"),
)
"""Titles, and files of train/: the SAE has seen them."""
SIDE = 128
"""Pixels of the shorter side."""
CREDIT = (
    "Caltech-101 by Li, Andreeto, Ranzato and Perona (CaltechDATA), CC BY 4.0, made smaller: {}"
)


def keep_examples(photos: Path, sae: Path) -> None:
    """Write those that are in `photos`/train into the SAE's folder, with whose they are; where there are
    none, the page opens with pictures of the index."""
    rows = []
    for title, name in EXAMPLES:
        file = photos / "train" / f"{name}.jpg"
        if not file.is_file():
            continue
        image = open_image(file)
        factor = SIDE / min(image.size)
        size = (round(image.width * factor), round(image.height * factor))
        small = image.resize(size, Image.Resampling.LANCZOS)
        rows.append((title, small, CREDIT.format(name)))
    if rows:
        write_examples(sae, rows)
