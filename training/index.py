"""Builds the ConceptIndex of an SAE over a data set: statistics, exemplars, names, all in one pass.

    python training/index.py --sae DIR --data DIR --out DIR
    accelerate launch training/index.py --sae DIR --data hf:user/name:test --resume

Knows options, processes and partial results; the work is in `sae.concepts`. Each process takes every n-th
batch; the main one merges, looks at the exemplar images again, names the concepts and writes OUT/concepts.
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from accelerate import Accelerator

from sae.backbones import Backbone
from sae.backbones.image_encoder import image_encoder
from sae.concepts.build.assembly import N_LIT
from sae.concepts.build.image_pass import Embed
from sae.concepts.build.naming import MINIMUM, SURE, name_by_labels, name_by_text
from sae.concepts.build.partial import remove_parts
from sae.concepts.index import ConceptIndex
from sae.hub import BUNDLED, local_folder
from sae.model import SparseAutoencoder
from sae.storage import ArtifactError, sha256
from training.data.labelled import Labelled, World, open_labelled, vocabulary
from training.grids import draw_for_card
from training.indexing.index_pass import Pass
from training.launch import command, processes


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--sae", default="bundled", help="artifact: 'bundled', a folder or a Hub id")
    add("--data", default="world", help="'world', a folder of images, .tar shards, or hf:user/name")
    add("--out", help="folder to write concepts/ into (default: the SAE's own folder)")
    add("--backbone", help="the SAE's own unless given")
    add("--n-images", type=int, help="images to look at, at most (default: all; 6000 of 'world')")
    add("--batch", type=int, default=32, help="images per forward")
    add("--tau", type=float, default=0.2, help="activation from which a token counts for its class")
    add("--vocabulary", help="file of candidate names, one a line")
    add("--naming-minimum", type=float, default=MINIMUM, help="names that score lower are left out")
    add("--naming-confidence", type=float, default=SURE, help="and those that are less sure, 0 … 1")
    add("--name-exemplars", type=int, default=N_LIT, help="exemplars that a name is from")
    add("--embedder", help="encoder for MonoSemanticity: a --backbone or timm id")
    add("--no-thumbnails", action="store_true", help="keep no pictures, where a licence forbids it")
    add("--names-only", action="store_true", help="name the index that is there, nothing else")
    add("--resume", action="store_true", help="go on with a pass that was stopped")
    add("--save-every", type=int, default=5000, help="images between partial results")
    add("--device", help="cpu, cuda, … (default: what Accelerate chooses)")
    options = parser.parse_args(arguments)
    if options.batch < 1 or options.save_every < 1:
        parser.error("--batch and --save-every must be at least 1")
    if options.name_exemplars < 0:
        parser.error("--name-exemplars must be at least 0")
    return options


@command
def main(argv: list[str]) -> None:
    """Build, name and save; prints one JSON object."""
    options = parse(argv)
    with processes(cpu=options.device == "cpu") as accelerator:
        build(options, accelerator)


def build(options: argparse.Namespace, accelerator: Accelerator) -> None:
    """This process's part of the pass; the main process merges, names and saves."""
    device = options.device or accelerator.device
    folder = _sae_folder(options.sae)
    out = Path(options.out) if options.out else folder
    sae = SparseAutoencoder.from_pretrained(folder, device=device)
    backbone = _backbone(options.backbone, sae, device)
    data = open_labelled(options.data, options.n_images)
    run = Pass(data, backbone, sae, sha256(folder / "sae_weights.safetensors"), out, options)
    if options.names_only:
        index = ConceptIndex.from_pretrained(out)
    else:
        embed, embedder = _embedder(options.embedder, device)
        gathered = run.gather(accelerator, embed)
        if gathered is None:  # a process beside the main one: its part is done
            return
        index = run.assemble(gathered, embedder)
        _say_what_is_lost(index, out)
    if accelerator.is_main_process:
        index = with_names(index, data, backbone, options)
        index.save_pretrained(out)
        draw_for_card(index, out / "exemplars.webp")
        remove_parts(run.partial)
        print(json.dumps(summary(index)))  # noqa: T201


def with_names(
    index: ConceptIndex, data: World | Labelled, backbone: Backbone, options: argparse.Namespace
) -> ConceptIndex:
    """`index` named by the backbone's text tower, or else by the data's labels."""
    if index.text_tower is None:
        if options.vocabulary:
            raise ValueError(
                f"--vocabulary needs a backbone with a text tower; {backbone.id} has none, or "
                "--name-exemplars is 0. Leave it out: the data's labels are then the names."
            )
        return name_by_labels(index)
    words = vocabulary(options.data, data.classes, options.vocabulary)
    least = {"minimum": options.naming_minimum, "sure": options.naming_confidence}
    return name_by_text(index, backbone, words, **least)


def summary(index: ConceptIndex) -> dict[str, object]:
    """The figures that are printed at the end."""
    figures: dict[str, object] = {
        "images": index.n_images,
        "unreadable": index.n_unreadable,
        "tokens": index.n_tokens,
        "latents": len(index),
        "dead": int(index.dead.sum()),
        "rare": int(index.rare.sum()),
        "dense": int(index.dense.sum()),
        "named": sum(map(bool, index.names)),
    }
    scores = index.statistics.get("monosemanticity")
    if scores is not None:
        known = np.isfinite(scores)
        figures["monosemanticity_mean"] = float(scores[known].mean()) if known.any() else None
        often = known & ~index.rare
        figures["monosemanticity_mean_not_rare"] = (
            float(scores[often].mean()) if often.any() else None
        )
        if index.neuron_monosemanticity is not None:
            figures["monosemanticity_mean_of_neurons"] = index.neuron_monosemanticity["mean"]
    return figures


def _sae_folder(sae: str) -> Path:
    if sae == "bundled":
        return BUNDLED / "sae"
    return local_folder(sae, files=["config.json", "sae_weights.safetensors"])


def _say_what_is_lost(index: ConceptIndex, out: Path) -> None:
    """Statistics that other commands added to the index that is there are not part of a pass."""
    try:
        before = ConceptIndex.from_pretrained(out)
    except (ArtifactError, OSError):
        return
    if lost := sorted(set(before.statistics) - set(index.statistics)):
        print(  # noqa: T201
            f"The index that was in {out} also had {', '.join(lost)}; add them again with the "
            "commands that made them (training/steerability.py, --embedder).",
            file=sys.stderr,
        )


def _backbone(id: str | None, sae: SparseAutoencoder, device: object) -> Backbone:
    ref = sae.cfg.backbone
    own = id in (None, ref.id)
    return Backbone.from_pretrained(
        id or ref.id, revision=ref.revision if own else None, device=device
    )


def _embedder(id: str | None, device: object) -> tuple[Embed | None, str | None]:
    if id is None:
        return None, None
    return image_encoder(id, device=device), Path(id).name if Path(id).is_dir() else id


if __name__ == "__main__":
    sys.exit(main())
