"""Builds the sprite sheet of the emoji world from three npm packages of freely licensed art.

Run once, when the kinds change: `python training/world/art.py --cache DIR`. Needs `npm` (or the
three unpacked packages already in DIR) and `resvg_py`; nothing else in PatchLens needs either.
Knows which emoji make up the world and the packages' layouts; knows nothing of scenes or models.
Art: Noto Emoji (Apache-2.0), Twemoji (CC BY 4.0), Fluent Emoji (MIT); see NOTICE.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from PIL import Image

from sae.terminal import command

CELL = 64
COLUMNS = 12
PACKAGES = {
    "google": "emoji-datasource-google@16.0.0",
    "twitter": "emoji-datasource-twitter@16.0.0",
    "fluent": "fluentui-emoji@1.3.0",
}
KIND_TABLE: dict[str, dict[str, str]] = {
    "animal/mammal": {
        "cat": "cat/cat-face",
        "dog": "dog/dog-face",
        "pig": "pig/pig-face",
        "cow": "cow/cow-face",
        "tiger": "tiger/tiger-face",
        "rabbit": "rabbit/rabbit-face",
        "mouse": "mouse/mouse-face",
        "fox": "fox_face/fox",
        "bear": "bear",
        "panda": "panda_face/panda",
        "koala": "koala",
        "lion": "lion_face/lion",
        "monkey": "monkey_face/monkey-face",
        "elephant": "elephant",
        "giraffe": "giraffe_face/giraffe",
        "zebra": "zebra_face/zebra",
        "sheep": "sheep/ewe",
        "camel": "camel/two-hump-camel",
        "hedgehog": "hedgehog",
        "kangaroo": "kangaroo",
    },
    "animal/bird": {
        "chicken": "chicken",
        "penguin": "penguin",
        "eagle": "eagle",
        "duck": "duck",
        "owl": "owl",
        "parrot": "parrot",
        "flamingo": "flamingo",
    },
    "animal/sea animal": {
        "whale": "whale/spouting-whale",
        "octopus": "octopus",
        "dolphin": "dolphin",
        "crab": "crab",
        "shark": "shark",
        "turtle": "turtle",
    },
    "animal/bug": {
        "snail": "snail",
        "bee": "bee/honeybee",
        "ladybug": "ladybug/lady-beetle",
        "spider": "spider",
        "butterfly": "butterfly",
    },
    "plant/flower": {
        "tulip": "tulip",
        "rose": "rose",
        "sunflower": "sunflower",
        "daisy": "blossom/blossom",
    },
    "plant/wild plant": {
        "cactus": "cactus",
        "pine": "evergreen_tree/evergreen-tree",
        "palm": "palm_tree/palm-tree",
        "clover": "four_leaf_clover/four-leaf-clover",
        "mushroom": "mushroom",
    },
    "food/fruit": {
        "apple": "apple/red-apple",
        "banana": "banana",
        "grapes": "grapes",
        "lemon": "lemon",
        "orange": "tangerine/tangerine",
        "strawberry": "strawberry",
        "cherries": "cherries",
        "peach": "peach",
        "pineapple": "pineapple",
        "watermelon": "watermelon",
    },
    "food/vegetable": {
        "carrot": "carrot",
        "corn": "corn/ear-of-corn",
        "broccoli": "broccoli",
        "eggplant": "eggplant",
        "avocado": "avocado",
        "tomato": "tomato",
    },
    "food/meal": {
        "pizza": "pizza",
        "burger": "hamburger/hamburger",
        "taco": "taco",
        "fries": "fries/french-fries",
        "hotdog": "hotdog/hot-dog",
        "sushi": "sushi",
        "egg": "fried_egg/cooking",
        "pretzel": "pretzel",
        "cheese": "cheese_wedge/cheese-wedge",
    },
    "food/sweet": {
        "donut": "doughnut/doughnut",
        "cookie": "cookie",
        "cake": "birthday/birthday-cake",
        "cupcake": "cupcake",
    },
    "vehicle/road vehicle": {
        "car": "car/automobile",
        "bus": "bus",
        "taxi": "taxi",
        "ambulance": "ambulance",
        "tractor": "tractor",
        "truck": "truck/delivery-truck",
        "train": "train2/train",
        "bicycle": "bike/bicycle",
    },
    "vehicle/aircraft": {
        "airplane": "airplane",
        "helicopter": "helicopter",
        "rocket": "rocket",
        "ufo": "flying_saucer/flying-saucer",
        "parachute": "parachute",
    },
    "vehicle/boat": {
        "sailboat": "boat/sailboat",
        "ship": "ship",
    },
    "object/instrument": {
        "guitar": "guitar",
        "trumpet": "trumpet",
        "drum": "drum_with_drumsticks/drum",
        "saxophone": "saxophone",
        "piano": "musical_keyboard/musical-keyboard",
    },
    "object/sport": {
        "basketball": "basketball",
        "football": "football/american-football",
        "soccer": "soccer/soccer-ball",
        "bowling": "bowling",
        "trophy": "trophy",
    },
    "object/tool": {
        "hammer": "hammer",
        "scissors": "scissors",
        "axe": "axe",
        "key": "key",
        "magnet": "magnet",
        "lock": "lock/locked",
        "anchor": "anchor",
    },
    "object/clothing": {
        "hat": "tophat/top-hat",
        "shirt": "shirt/t-shirt",
        "dress": "dress",
        "shoe": "athletic_shoe/running-shoe",
        "crown": "crown",
        "glasses": "eyeglasses/glasses",
    },
    "object/device": {
        "camera": "camera",
        "television": "tv/television",
        "telephone": "phone/telephone",
        "lamp": "bulb/light-bulb",
        "clock": "alarm_clock/alarm-clock",
        "laptop": "computer/laptop",
    },
}
"""Every object kind as `name: short_name[/fluent_name]` under its realm and group.

`short_name` is the key of the emoji-datasource packages; `fluent_name` is the SVG's file name in
`fluentui-emoji` where it differs from the name written with dashes. The groups follow the Unicode
subcategories, joined where a newcomer would use one word for both.
"""


def unpack(cache: Path) -> dict[str, Path]:
    """Fetch the three packages with `npm pack` unless `cache` already has them unpacked."""
    roots = {}
    for folder, package in PACKAGES.items():
        root = cache / folder / "package"
        if not root.exists():
            cache.mkdir(parents=True, exist_ok=True)
            out = subprocess.run(
                ["npm", "pack", package, "--silent"],
                cwd=cache,
                check=True,
                capture_output=True,
                text=True,
            )
            with tarfile.open(cache / out.stdout.split()[-1]) as tar:
                tar.extractall(cache / folder, filter="data")
        roots[folder] = root
    return roots


def render_svg(path: Path) -> Image.Image:
    """The SVG at `path` as a CELL × CELL RGBA picture."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_path=str(path), width=CELL, height=CELL)
    return Image.open(io.BytesIO(bytes(png)), formats=["PNG"]).convert("RGBA")


def fit(sprite: Image.Image) -> Image.Image:
    """Crop to the drawn pixels and centre on a CELL square, so that sizes mean the same in every style."""
    sprite = sprite.convert("RGBA")
    sprite = sprite.crop(sprite.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox())
    scale = CELL / max(sprite.size)
    size = [max(1, round(side * scale)) for side in sprite.size]
    sprite = sprite.resize(size, Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(sprite, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def build(cache: Path, out: Path) -> None:
    """Write `sprites.webp` (styles stacked, COLUMNS wide) and `sprites.json` (kinds and layout)."""
    roots = unpack(cache)
    table = json.loads((roots["google"] / "emoji.json").read_text())
    by_name = {name: entry for entry in table for name in entry["short_names"]}
    kinds = [
        (path, name, source) for path, row in KIND_TABLE.items() for name, source in row.items()
    ]
    rows = -(-len(kinds) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, 3 * rows * CELL))
    for number, (_, name, source) in enumerate(kinds):
        short, _, fluent = source.partition("/")
        image = by_name[short]["image"]
        drawn = (
            Image.open(roots["google"] / "img/google/64" / image, formats=["PNG"]),
            Image.open(roots["twitter"] / "img/twitter/64" / image, formats=["PNG"]),
            render_svg(roots["fluent"] / "icons/modern" / f"{fluent or name}.svg"),
        )
        for style, sprite in enumerate(drawn):
            x, y = number % COLUMNS, style * rows + number // COLUMNS
            sheet.paste(fit(sprite), (x * CELL, y * CELL))
    sheet.save(out / "sprites.webp", quality=90, alpha_quality=90, method=6)
    layout = {
        "cell": CELL,
        "columns": COLUMNS,
        "rows_per_style": rows,
        "styles": ["noto", "twemoji", "fluent"],
        "kinds": [{"name": name, "path": path} for path, name, _ in kinds],
    }
    (out / "sprites.json").write_text(json.dumps(layout, indent=1) + "\n")


@command
def main(argv: list[str]) -> None:
    """Draw the sheet; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/art"), help="where packages are unpacked"
    )
    parser.add_argument("--out", type=Path, default=Path("sae/bundled"))
    args = parser.parse_args(argv)
    build(args.cache, args.out)


if __name__ == "__main__":
    sys.exit(main())
