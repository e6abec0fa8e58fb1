"""The heads and task-level results that come with PatchLens, or lie in a folder like theirs.

Knows folders: ROOT/TASK/HEAD for heads, ROOT/TASK/compare.json for results. Knows no maths. Names
come from remote users, so they are only ever looked up in listings, never joined to a path unseen.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from sae.adaptation.files import CONFIG, METRICS, StoredHead, load_head
from sae.adaptation.heads import ZeroShotHead
from sae.backbones.prompting import ClipParts
from sae.storage import read_json
from sae.world.tasks import TASKS, Task, task

ROOT = Path(__file__).resolve().parents[1] / "bundled" / "heads"
RESULTS = "compare.json"
ZERO_SHOT = "zero_shot"
ORDER = (ZERO_SHOT, "coop", "vpt", "maple", "linear")


def head_names(task_name: str, root: Path = ROOT) -> list[str]:
    """The heads there are for a task; zero-shot always is, and comes first."""
    task(task_name)
    folder = root / task_name
    there = {path.parent.name for path in folder.glob(f"*/{CONFIG}")} if folder.is_dir() else set()
    there.add(ZERO_SHOT)
    return sorted(there, key=lambda name: (ORDER.index(name) if name in ORDER else 99, name))


def open_head(task_name: str, name: str, parts: ClipParts, root: Path = ROOT) -> StoredHead:
    """A head of a task by name; zero-shot is made of the task's templates, for any CLIP.

    Raises ValueError for a name that is not listed or a head of another backbone, ArtifactError
    for damaged files.
    """
    found: Task = task(task_name)
    if name not in head_names(task_name, root):
        raise ValueError(
            f"task {task_name!r} has no head {name!r}, expected one of "
            f"{', '.join(head_names(task_name, root))}"
        )
    if name == ZERO_SHOT:
        head = ZeroShotHead(found.base, templates=found.templates)
        origin = {"id": parts.backbone.id, "revision": None, "fingerprint": None} | parts.shapes()
        return StoredHead(head, origin, task_name)
    return load_head(root / task_name / name, parts)


def list_tasks(root: Path = ROOT) -> list[dict[str, Any]]:
    """name, title, cause, base and novel classes, heads and their accuracies, of each task."""
    return [
        {
            "name": each.name,
            "title": each.title,
            "cause": each.cause,
            "base": list(each.base),
            "novel": list(each.novel),
            "heads": [
                {"name": name, "accuracy": accuracies(each.name, name, root)}
                for name in head_names(each.name, root)
            ],
        }
        for each in TASKS
    ]


def accuracies(task_name: str, name: str, root: Path = ROOT) -> dict[str, dict[str, float]]:
    """{"base": {"mean", "std"}, "novel": …} over seeds, {} if it was not measured."""
    if name not in head_names(task_name, root):
        return {}
    path = root / task_name / name / METRICS
    return read_json(path).get("accuracy", {}) if path.is_file() else {}


@lru_cache(maxsize=16)
def results(task_name: str, root: Path = ROOT) -> dict[str, Any]:
    """Task-level results by head, of zero-shot against it; {} if none were made.

    {"vpt": {…}, "maple": {…}}; what is inside is written by training/compare.py.
    """
    task(task_name)
    path = root / task_name / RESULTS
    return read_json(path) if path.is_file() else {}
