"""Pairs of heads, compared or read again where the same comparison lies: OUT/TASK/A-B/ and OUT/table1.md.

Knows files, digests and how a head is named; what is measured is in `training.tasks.comparing`, how it looks
in `training.tasks.figures`.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

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
from training.tasks.comparing import Model, Sizes, compare
from training.tasks.data import TaskData, open_task, read_templates
from training.tasks.figures import areas_table, draw, gains_table, report, seeds_table, table

BOUNDS = (
    "A class's bounds, the 50th and 100th largest count of both models together, are PatchLens' own: the "
    "paper's code does not have its bounds, so these groups are not to be held against its levels."
)
GAIN = "Where the gain on base classes comes from (shares of the gain):"
AREAS = (
    "Areas under the curves, error term dropped: deletion (low is good) / insertion (high is good):"
)


def compare_all(args: argparse.Namespace, command: str) -> str:
    """All tasks and pairs that the command line asks for; the tables, as OUT/table1.md has them."""
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
    summary = [
        f"Made by `{command}`.",
        "",
        table(results),
        "",
        BOUNDS,
        "",
        GAIN,
        "",
        gains_table(results),
        "",
    ]
    summary += [AREAS, "", areas_table(results), ""]
    if args.data is None and args.task == "all":
        rows = [
            (name, head, accuracy)
            for name in tasks
            for head in files.head_names(name, args.heads_root)
            if (accuracy := files.accuracies(name, head, args.heads_root))
        ]
        summary += ["Accuracy over seeds (mean ± standard deviation):", "", seeds_table(rows), ""]
    text = "\n".join(summary)
    (args.out / "table1.md").write_text(text, encoding="utf-8")
    return text


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
            known |= {f"{name}/{part}": figures for name, figures in old[part].items()}
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
    state = hashlib.sha256(repr(settings).encode())
    for name, tensor in sorted(module.state_dict().items()):
        state.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


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
