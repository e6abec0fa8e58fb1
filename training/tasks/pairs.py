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
from sae.adaptation.heads import Head, ZeroShotHead
from sae.adaptation.lens import ConceptLens
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.model import SparseAutoencoder
from sae.storage import read_sealed, replacing, sealed, write_sealed
from sae.world.tasks import TASKS
from training.tasks.chance import chance
from training.tasks.comparing import Model, Sizes, compare
from training.tasks.data import TaskData, open_task, read_templates
from training.tasks.figures import (
    areas_table,
    chance_table,
    draw,
    gains_table,
    report,
    seeds_table,
    table,
)

BOUNDS = (
    "A class's bounds, the 50th and 100th largest count of both models together, are PatchLens' own: the "
    "paper's code does not have its bounds, so these groups are not to be held against its levels."
)
GAIN = "Where the gain on base classes comes from (shares of the gain):"
CHANCE = (
    "The same with its control: random concepts of the picture that carry as much activation switched off "
    "instead (95 % intervals over pictures, draws and seeds):"
)
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
    summary += [CHANCE, "", chance_table(results), ""]
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
    shipped = args.heads_root / data.name / files.RESULTS
    result = None if args.overwrite else earlier(file, shipped, second.name, inputs)
    if result is None:
        result = compare(lens, data, first, second, sizes, known=known, seed=args.seed)
        result |= {"inputs": inputs, "command": command}
    for part in ("masking", "faithfulness"):
        known |= {f"{name}/{part}": figures for name, figures in result[part].items()}
    if add_chance(args, lens, data, first, second, result) or not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        text = report(result, draw(result, folder), command)
        (folder / "report.md").write_text(text, encoding="utf-8")
        write_sealed(file, result)
    return result


def earlier(file: Path, shipped: Path, head: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """What the same comparison found before: in its own file, or among what the heads came with."""
    anew = "Give --overwrite to compare anew."
    if file.is_file() and (old := read_sealed(file, anew)).get("inputs") == inputs:
        return old
    old = read_sealed(shipped, anew).get(head, {}) if shipped.is_file() else {}
    return old if old.get("inputs") == inputs else None


def add_chance(
    args: argparse.Namespace,
    lens: ConceptLens,
    data: TaskData,
    first: Model,
    second: Model,
    result: dict[str, Any],
) -> bool:
    """Measure what chance would leave of the gain, over all seeds of the head that there are, into
    `result["base"]["chance"]`; False if it is there already, or if no vision tower is prompted, so that no
    concept is new."""
    if first.head.vision_prompts() is None and second.head.vision_prompts() is None:
        return False
    heads = [second.head, *other_seeds(args, second, data.name)]
    inputs = {"n": args.n_chance, "heads": [digest(head, head.settings) for head in heads]}
    if result["base"].get("chance", {}).get("inputs") == inputs:
        return False
    before, *tuned = (
        head.classifier(lens.parts, data.base, name=name)
        for name, head in ((first.name, first.head), *((second.name, head) for head in heads))
    )
    test = data.test("base", args.n_chance, args.seed, args.shots)
    result["base"]["chance"] = chance(lens, before, tuned, test) | {"inputs": inputs}
    return True


def other_seeds(args: argparse.Namespace, model: Model, task: str) -> list[Head]:
    """The heads of further seeds of training, which lie in SEEDS_ROOT/TASK/HEAD/seed-N."""
    root = args.seeds_root or args.heads_root
    folders = sorted(path.parent for path in (root / task / model.name).glob(f"seed-*/{CONFIG}"))
    return [load_head(folder).head for folder in folders]


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
        text = json.dumps(sealed(results), separators=(",", ":"))
        temporary.write_text(f"{text}\n", encoding="utf-8")


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
