"""Compare two heads of a task, concept by concept, over a whole test set.

    python training/compare.py --heads zero_shot maple --task fluent --out runs/compare
    python training/compare.py --heads zero_shot coop vpt maple --task all --out runs/compare

Knows the order of things. Of more than two heads the first is compared with each other one. Writes
OUT/TASK/A-B/: compare.json, a PNG a panel and report.md; then OUT/table1.md. A pair that lies there
already, made of the same weights and sizes, is not measured again.
"""

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import nn
from tqdm import tqdm

from sae.adaptation import files
from sae.adaptation.files import CONFIG, load_head
from sae.adaptation.heads import ZeroShotHead
from sae.adaptation.lens import ConceptLens
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.model import SparseAutoencoder
from sae.storage import read_json, replacing, write_json
from sae.world.tasks import TASKS
from training.launch import command
from training.tasks.comparing import Model, Sizes, compare
from training.tasks.data import TaskData, open_task, read_templates
from training.tasks.figures import areas_table, draw, gains_table, report, seeds_table, table

GAIN = "Where the gain on base classes comes from (shares of the gain):"
AREAS = (
    "Areas under the curves, error term dropped: deletion (low is good) / insertion (high is good):"
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; errors leave with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--heads", required=True, nargs="+", help="bundled names, folders or Hub ids; two or more")
    add("--task", required=True, help="a bundled task, 'all', or the name for --data")
    add("--out", required=True, type=Path)
    add("--data", help="folder of pictures, as for training/prompts.py")
    add("--templates", type=Path, help="text file of prompt templates, one {} a line")
    add("--backbone", default="bundled")
    add("--sae", default="bundled")
    add("--heads-root", type=Path, default=files.ROOT, help="folder with TASK/HEAD folders")
    add("--n-test", type=int, default=400, help="test pictures a split")
    add("--n-masks", type=int, default=200, help="of these, for masking curves")
    add("--n-curves", type=int, default=60, help="of these, for deletion and insertion curves")
    add("--shots", type=int, default=16, help="training pictures a class that rank the concepts")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--overwrite", action="store_true", help="measure again what is there")
    add("--ship", action="store_true", help="also write HEADS_ROOT/TASK/compare.json for the app")
    args = parser.parse_args(argv)
    if len(args.heads) < 2:
        parser.error("--heads needs two or more heads")
    if len(set(args.heads)) != len(args.heads):
        parser.error(f"--heads names one head twice: {' '.join(args.heads)}")
    if min(args.n_test, args.n_masks, args.n_curves, args.shots) < 1:
        parser.error("--n-test, --n-masks, --n-curves and --shots must be at least 1")
    return args


@command
def main(argv: list[str]) -> None:
    """Compare what the command line says."""
    run(parse(argv), shlex.join(["python", "training/compare.py", *argv]))


def run(args: argparse.Namespace, command: str) -> None:
    """All tasks and pairs."""
    parts = ClipParts(Backbone.from_pretrained(args.backbone, device=args.device))
    sae = SparseAutoencoder.from_pretrained(args.sae, device=args.device).requires_grad_(False)
    lens = ConceptLens(parts, sae)
    tasks = [each.name for each in TASKS] if args.task == "all" else [args.task]
    results: list[dict[str, Any]] = []
    with tqdm(total=len(tasks) * (len(args.heads) - 1), unit="pair") as bar:
        for name in tasks:
            data = open_task(name, args.data, read_templates(args.templates))
            models = [open_model(head, data, parts, args.heads_root) for head in args.heads]
            known: dict[str, Any] = {}
            own = []
            for other in models[1:]:
                bar.set_description(f"{name} {other.name}")
                own.append(pair(args, lens, data, models[0], other, known, command))
                bar.update()
            if args.ship:
                ship({result["heads"][1]: result for result in own}, args.heads_root / name)
            results += own
    summary = [f"Made by `{command}`.", "", table(results), "", GAIN, "", gains_table(results), ""]
    summary += [AREAS, "", areas_table(results), ""]
    if args.data is None and args.task == "all":
        rows = [
            (name, head, found)
            for name in tasks
            for head in files.head_names(name, args.heads_root)
            if (found := files.accuracies(name, head, args.heads_root))
        ]
        summary += ["Accuracy over seeds (mean ± standard deviation):", "", seeds_table(rows), ""]
    (args.out / "table1.md").write_text("\n".join(summary), encoding="utf-8")
    say("\n".join(summary))


def pair(
    args: argparse.Namespace,
    lens: ConceptLens,
    data: TaskData,
    first: Model,
    second: Model,
    known: dict[str, Any],
    command: str,
) -> dict[str, Any]:
    """Compare two heads and write their folder, or read what the same comparison wrote before."""
    sizes = Sizes(args.n_test, args.n_masks, args.n_curves, args.shots)
    folder = args.out / data.name / f"{first.name}-{second.name}"
    file, inputs = folder / "compare.json", inputs_of(args, lens, data, first, second)
    if file.is_file() and not args.overwrite and (old := read_json(file)).get("inputs") == inputs:
        for part in ("masking", "faithfulness"):
            known |= {f"{name}/{part}": found for name, found in old[part].items()}
        return old
    result = compare(lens, data, first, second, sizes, known=known, seed=args.seed)
    result |= {"inputs": inputs, "command": command}
    folder.mkdir(parents=True, exist_ok=True)
    text = report(result, draw(result, folder), command)
    (folder / "report.md").write_text(text, encoding="utf-8")
    write_json(file, result)
    return result


def inputs_of(
    args: argparse.Namespace, lens: ConceptLens, data: TaskData, first: Model, second: Model
) -> dict[str, Any]:
    """What a comparison depends on: digests of all weights, data and sizes."""
    options = ("data", "n_test", "n_masks", "n_curves", "shots", "seed")
    return {
        "backbone": lens.parts.fingerprint(),
        "sae": digest(lens.sae, lens.sae.cfg),
        "heads": [digest(m.head, m.head.class_names, m.head.settings) for m in (first, second)],
        "classes": [list(data.base), list(data.novel)],
        "templates": list(data.templates),
    } | {name: getattr(args, name) for name in options}


def digest(module: nn.Module, *settings: object) -> str:
    """16 hexadecimal digits of a module's tensors and settings."""
    found = hashlib.sha256(repr(settings).encode())
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def ship(results: dict[str, Any], folder: Path) -> None:
    """Write what the app shows of a task, without line breaks: a fifth of the size."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / files.RESULTS) as temporary:
        temporary.write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")


def open_model(head: str, data: TaskData, parts: ClipParts, root: Path) -> Model:
    """A head by name, from its folder or from the Hub."""
    folder = Path(head).expanduser()
    if (folder / CONFIG).is_file():
        return Model(folder.name, load_head(folder, parts).head)
    if "/" in head:
        return Model(head.rpartition("/")[2], load_head(head, parts).head)
    if head == ZeroShotHead.kind:
        return Model(head, ZeroShotHead(data.base, templates=data.templates))
    return Model(head, files.open_head(data.name, head, parts, root).head)


def say(text: str) -> None:
    """Print to standard output."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
