"""Builds the ConceptIndex of an SAE over a data set and writes it beside the SAE.

    python training/index.py --sae DIR --data world --n-images 6000

Knows data sources and the vocabulary that names are chosen from; the work is in `sae.concepts`.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone
from sae.backbones import Backbone
from sae.concepts.build import Item, build_index
from sae.concepts.index import ConceptIndex
from sae.concepts.naming import name_latents
from sae.images import open_image
from sae.model import SparseAutoencoder
from sae.storage import sha256
from training.sources import SUFFIXES

INDEX_SEED = 777
"""Scenes of the bundled index: neither training scenes of the CLIP (seed 0) nor held-out ones."""

NAMING_MINIMUM = 1.75
"""Standard deviations that the best word must reach."""


class World:
    """`n` scenes of the emoji world; labels are the main object's kind, captions describe all."""

    def __init__(self, n: int) -> None:
        self.name, self.n = f"emoji world, {n} scenes", n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> Item:
        from PIL import Image

        from sae.scenes import compose
        from training.world.generator import sample_scene
        from training.world.questions import description, main_object

        scene = sample_scene(np.random.Generator(np.random.PCG64([INDEX_SEED, number])))
        return Item(Image.fromarray(compose(scene).image), main_object(scene), description(scene))


class Folder:
    """The images of a folder; an image's label is the name of the sub-folder it lies in."""

    def __init__(self, root: Path, n: int | None) -> None:
        files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise FileNotFoundError(f"--data {root}: no images found in it or below.")
        order = np.random.default_rng(0).permutation(len(files))[:n]
        self.files = [files[i] for i in sorted(order)]
        self.root, self.name = root, f"{root.name}, {len(self.files)} images"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Item:
        file = self.files[number]
        label = "" if file.parent == self.root else file.parent.name.replace("_", " ")
        return Item(open_image(file), label, label or file.stem)


def world_words() -> dict[str, list[str]]:
    """Names and the phrases that stand for them: kinds, groups, realms, backgrounds."""
    from sae.backgrounds import BACKGROUNDS
    from sae.scenes import kinds
    from training.world.captions import noun_phrase, place_phrase
    from training.world.evaluate import TEMPLATES

    nouns = (
        {kind.name for kind in kinds()}
        | {kind.group for kind in kinds()}
        | {k.realm for k in kinds()}
    )
    words = {noun: [t.format(noun_phrase(noun)) for t in TEMPLATES] for noun in sorted(nouns)}
    for ground in BACKGROUNDS:
        words[f"{ground} background"] = [
            f"{thing} {place_phrase(ground)}"
            for thing in ("an object", "an animal", "a picture of food")
        ]
    return words


def text_words(labels: set[str]) -> dict[str, list[str]]:
    """The data set's own labels as candidate names."""
    return {label: [f"a photo of a {label}.", f"{label}"] for label in sorted(labels) if label}


def with_names(
    index: ConceptIndex,
    data: World | Folder,
    backbone: Backbone,
    words: dict[str, list[str]],
    minimum: float,
) -> ConceptIndex:
    """`index` with names from the backbone's text tower."""
    rows = [backbone.text_features(phrases).mean(0) for phrases in words.values()]
    text = np.stack([row.float().cpu().numpy() / float(row.norm()) for row in rows])
    numbers = np.unique(index.exemplar_table("top")[0])
    numbers = numbers[numbers >= 0]
    features = [
        backbone.image_features([data[int(n)].image for n in numbers[i : i + 64]])
        .float()
        .cpu()
        .numpy()
        for i in tqdm(range(0, len(numbers), 64), desc="naming (64 images each)")
    ]
    return name_latents(
        index, list(words), text, numbers, np.concatenate(features), minimum=minimum
    )


def main() -> None:
    """Build, name and save; see `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sae", default="bundled", help="artifact folder; the index goes into it")
    parser.add_argument("--data", default="world", help="'world', or a folder of images")
    parser.add_argument("--backbone", help="the SAE's own unless given")
    parser.add_argument("--n-images", type=int, default=6000, help="images to look at, at most")
    parser.add_argument("--batch", type=int, default=32, help="images per forward")
    parser.add_argument(
        "--naming-minimum", type=float, default=NAMING_MINIMUM, help="latents below stay nameless"
    )
    parser.add_argument("--names-only", action="store_true", help="name an index that is there")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    from sae.hub import BUNDLED

    folder = BUNDLED / "sae" if args.sae == "bundled" else Path(args.sae)
    sae = SparseAutoencoder.from_pretrained(folder, device=args.device)
    ref = sae.cfg.backbone
    own = args.backbone in (None, ref.id)
    backbone = Backbone.from_pretrained(
        args.backbone or ref.id, revision=ref.revision if own else None, device=args.device
    )
    data = World(args.n_images) if args.data == "world" else Folder(Path(args.data), args.n_images)
    if args.names_only:
        index = ConceptIndex.from_pretrained(folder)
    else:
        index = build_index(
            data,
            backbone,
            sae,
            batch=args.batch,
            sae_sha256=sha256(folder / "sae_weights.safetensors"),
            progress=lambda batches: tqdm(batches, desc=f"statistics ({args.batch} images each)"),
        )
    if backbone.has_text:
        labels = (
            {}
            if args.data == "world"
            else {path.parent.name.replace("_", " ") for path in data.files}
        )
        words = world_words() if args.data == "world" else text_words(labels)
        if words:
            index = with_names(index, data, backbone, words, args.naming_minimum)
    index.save_pretrained(folder)
    named = sum(bool(name) for name in index.names)
    summary = {
        "images": index.n_images,
        "tokens": index.n_tokens,
        "latents": len(index),
        "dead": int(index.dead.sum()),
        "dense": int(index.dense.sum()),
        "named": named,
    }
    print(json.dumps(summary))  # noqa: T201


if __name__ == "__main__":
    main()
