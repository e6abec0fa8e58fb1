"""Head files: a folder with config.json and head.safetensors, written whole and read strictly.

Knows the format, that a head belongs to one CLIP, and the heads and task-level results that come
with PatchLens (or lie in a folder like theirs); knows nothing of training or maths.

    config.json         format, kind, class names, settings, backbone (id, revision, fingerprint,
                        shapes), sha256 of the weights, and the seal of all this (`sae.storage`)
    head.safetensors    the learned tensors; empty for zero-shot
    metrics.json        optional: accuracies, written by training/prompts.py

    ROOT/TASK/HEAD          the heads of a task
    ROOT/TASK/compare.json  its results

Names of tasks and heads come from remote users, so they are only ever looked up in listings, never
joined to a path unseen.
"""

import inspect
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sae.adaptation.heads import HEADS, Head, ZeroShotHead
from sae.backbones.prompting import ClipParts
from sae.errors import ArtifactError
from sae.hub import local_folder, push_folder
from sae.storage import (
    check_seal,
    read_json,
    read_sealed,
    replacing,
    sealed,
    sha256,
    typed_fields,
    write_json,
)
from sae.world.tasks import TASKS, Task, task

FORMAT = 1
CONFIG, WEIGHTS, METRICS = "config.json", "head.safetensors", "metrics.json"
AGAIN = "Train or download the head again."
ROOT = Path(__file__).resolve().parents[1] / "bundled" / "heads"
RESULTS = "compare.json"
REFERENCE = ZeroShotHead.kind
"""The head that every task has, and that all others are compared with in `results`."""
_CHEAP = 1024
"""No number of a head's settings up to this one costs time or memory worth a look."""

_CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "kind": (str,),
    "task": (str, type(None)),
    "class_names": (list,),
    "settings": (dict,),
    "backbone": (dict,),
    "sha256": (str,),
}
_BACKBONE_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "revision": (str, type(None)),
    "fingerprint": (str, type(None)),
    "d_vision": (int,),
    "d_text": (int,),
    "d_proj": (int,),
    "n_vision_layers": (int,),
    "n_text_layers": (int,),
}


@dataclass(frozen=True)
class StoredHead:
    """A head with what its files say of it."""

    head: Head
    backbone: dict[str, Any]
    task: str | None = None

    def require(self, parts: ClipParts) -> None:
        """ValueError unless the head was trained on this CLIP."""
        shapes = parts.shapes()
        other = {name: self.backbone[name] for name in shapes}
        if other != shapes:
            raise ValueError(
                f"this {self.head.kind} head was trained on {self.backbone['id']} ({other}), got "
                f"{parts.backbone.id} ({shapes}); load the backbone that it belongs to"
            )
        mark = self.backbone["fingerprint"]
        if mark is not None and parts.backbone.dtype != torch.bfloat16:
            fingerprint = parts.fingerprint()
            if fingerprint != mark:
                raise ValueError(
                    f"this {self.head.kind} head was trained on the weights {mark} of "
                    f"{self.backbone['id']}, got the weights {fingerprint} of {parts.backbone.id}, which "
                    "has the same shape; load the backbone that it belongs to"
                )


def save_head(
    folder: str | Path, head: Head, parts: ClipParts, *, task: str | None = None, half: bool = False
) -> None:
    """Write a head into `folder`; `half` stores fp16. config.json comes last, with the hash."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in head.state_dict().items()
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    backbone = parts.backbone
    origin = {"id": backbone.id, "revision": backbone.revision, "fingerprint": parts.fingerprint()}
    content = {
        "format": FORMAT,
        "kind": head.kind,
        "task": task,
        "class_names": list(head.class_names),
        "settings": _plain(head.settings),
        "backbone": origin | parts.shapes(),
        "sha256": sha256(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, sealed(content))


def push_head(
    repo_id: str,
    head: Head,
    parts: ClipParts,
    *,
    task: str | None = None,
    half: bool = False,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a class head",
) -> str:
    """Save a head, render its card and upload; returns the commit's address.

    `revision` is the branch to write to. A trained head's folder holds its accuracies as well: push
    that with `sae.hub.push_folder`, whose card then carries them.
    """
    to: dict[str, Any] = {"private": private, "token": token, "revision": revision}
    with tempfile.TemporaryDirectory() as folder:
        save_head(folder, head, parts, task=task, half=half)
        return push_folder(folder, repo_id, commit_message=commit_message, **to)


def load_head(
    id_or_dir: str | Path,
    parts: ClipParts | None = None,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> StoredHead:
    """Read a head, strictly: from a folder, a Hub id or, with `subfolder`, from "bundled".

    ArtifactError names file, found and expected; HubError says why a repository cannot be had. With
    `parts`, also ValueError unless the head belongs to that CLIP. Weights become float32.
    """
    access: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "local_files_only": local_files_only,
    }
    wanted = (CONFIG, WEIGHTS)
    folder = local_folder(id_or_dir, files=wanted, bundled="heads", subfolder=subfolder, **access)
    path = folder / CONFIG
    said = read_json(path)
    config = typed_fields(path, said, _CONFIG_TYPES, "")
    if config["format"] != FORMAT:
        raise ArtifactError(
            path, f"format {config['format']}", f"format {FORMAT}", "Update PatchLens."
        )
    origin = typed_fields(path, config["backbone"], _BACKBONE_TYPES, "backbone.")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ArtifactError(weights, "no such file", "the head's tensors", AGAIN)
    head = _rebuild(path, config, _shapes(weights))
    check_seal(path, said, AGAIN)
    if (digest := sha256(weights)) != config["sha256"]:
        raise ArtifactError(weights, f"sha256 {digest[:12]}…", config["sha256"][:12] + "…", AGAIN)
    _fill(weights, head)
    stored = StoredHead(head, origin, config["task"])
    if parts is not None:
        stored.require(parts)
        head.to(parts.backbone.device)
    return stored


def head_names(task_name: str, root: Path = ROOT) -> list[str]:
    """The heads there are for a task; zero-shot always is, and comes first."""
    task(task_name)
    folder = root / task_name
    there = {path.parent.name for path in folder.glob(f"*/{CONFIG}")} if folder.is_dir() else set()
    there.add(REFERENCE)
    order = list(HEADS)
    return sorted(there, key=lambda name: (order.index(name) if name in order else 99, name))


def open_head(task_name: str, name: str, parts: ClipParts, root: Path = ROOT) -> StoredHead:
    """A head of a task by name; zero-shot is made of the task's templates, for any CLIP.

    Raises ValueError for a name that is not listed or a head of another backbone, ArtifactError
    for damaged files.
    """
    named_task: Task = task(task_name)
    if name not in head_names(task_name, root):
        raise ValueError(
            f"task {task_name!r} has no head {name!r}, expected one of "
            f"{', '.join(head_names(task_name, root))}"
        )
    if name == REFERENCE:
        head = ZeroShotHead(named_task.base, templates=named_task.templates)
        origin = {"id": parts.backbone.id, "revision": None, "fingerprint": None} | parts.shapes()
        return StoredHead(head, origin, task_name)
    return load_head(root / task_name / name, parts)


def list_tasks(root: Path = ROOT) -> list[dict[str, Any]]:
    """name, title, cause, base and novel classes, heads (name, label, any_classes,
    accuracy), of each task."""
    return [
        {
            "name": each.name,
            "title": each.title,
            "cause": each.cause,
            "base": list(each.base),
            "novel": list(each.novel),
            "heads": [
                {
                    "name": name,
                    "label": HEADS[name].label if name in HEADS else name,
                    "any_classes": _any_classes(root / each.name / name),
                    "accuracy": accuracies(each.name, name, root),
                }
                for name in head_names(each.name, root)
            ],
        }
        for each in TASKS
    ]


def _any_classes(folder: Path) -> bool:
    """Whether a head of a task classifies other classes than those it was trained on, as its settings say.

    One that cannot be read says why when it is opened: it is listed like the others.
    """
    path = folder / CONFIG
    if not path.is_file():  # the reference, which is made of any names
        return True
    try:
        config = typed_fields(path, read_json(path), _CONFIG_TYPES, "")
    except ArtifactError:
        return True
    kind = HEADS.get(config["kind"])
    return kind is None or kind.takes_any_classes(config["settings"])


def accuracies(task_name: str, name: str, root: Path = ROOT) -> dict[str, dict[str, float]]:
    """{"base": {"mean", "std"}, "novel": …} over seeds, {} if it was not measured."""
    if name not in head_names(task_name, root):
        return {}
    path = root / task_name / name / METRICS
    return read_sealed(path).get("accuracy", {}) if path.is_file() else {}


@lru_cache(maxsize=16)
def results(task_name: str, root: Path = ROOT) -> dict[str, Any]:
    """Task-level results by head, of zero-shot against it; {} if none were made.

    {"vpt": {…}, "maple": {…}}; what is inside is written by training/compare.py.
    """
    task(task_name)
    path = root / task_name / RESULTS
    return read_sealed(path) if path.is_file() else {}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a safetensors file, from its header alone."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ArtifactError(path, f"{error}", "safetensors", AGAIN) from error


def _rebuild(path: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Head:
    """The head of a config, not yet filled; its tensors must have these shapes.

    No size is believed before the file of the weights has it: a number of the settings counts or measures
    tensors, so none is larger than their number and their sides, or than what costs nothing.
    """
    if config["kind"] not in HEADS:
        raise ArtifactError(path, f"kind {config['kind']!r}", f"one of {', '.join(HEADS)}", AGAIN)
    kind, settings = HEADS[config["kind"]], config["settings"]
    most = max([_CHEAP, len(shapes), *(side for shape in shapes.values() for side in shape)])
    if any(not 0 <= v <= most for v in settings.values() if isinstance(v, int)):
        raise ArtifactError(path, f"settings {settings}", f"sizes up to {most}", AGAIN)
    _check_kinds_of(path, kind, settings)
    try:
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"):  # shapes alone, whatever sizes are claimed
                expected = _shapes_of(kind(config["class_names"], **settings))
            if dict(shapes) != expected:
                few = sorted(set(shapes.items()) ^ set(expected.items()))[:4]
                raise ArtifactError(path, f"settings whose tensors differ: {few}", "a head", AGAIN)
            return kind(config["class_names"], **settings).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(path, f"settings that do not fit: {error}", "a head", AGAIN) from error


def _check_kinds_of(path: Path, kind: type[Head], settings: Mapping[str, Any]) -> None:
    """Insist that every setting is of the type of its default, and that lists hold texts."""
    defaults = {name: one.default for name, one in inspect.signature(kind).parameters.items()}
    for name, value in settings.items():
        usual = defaults.get(name, inspect.Parameter.empty)
        if usual is not inspect.Parameter.empty and type(value) is not type(usual):
            setting = f"settings.{name} = {value!r:.80}"
            raise ArtifactError(path, setting, type(usual).__name__, AGAIN)


def _shapes_of(head: Head) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in head.state_dict().items()}


def _fill(path: Path, head: Head) -> None:
    """Put the file's tensors, whose shapes fit, into a head."""
    tensors = load_file(path)
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.isfinite().all():
            raise ArtifactError(path, f"{name}: {value.dtype}, not finite", "numbers", AGAIN)
    head.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=True)
    head.requires_grad_(False)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()
    }
