"""Heads in the files that CoOp and MaPLe publish (Dassl's model.pth.tar-N), read without running them.

Knows those files' names and layout; the reading of pickles is `sae.interop`'s, and only tensors are
taken from it. Such a file names no classes and no class position: the caller does.

    CoOp     ctx; token_prefix and token_suffix (embeddings of the class names) are dropped
    MaPLe    prompt_learner.*, and the whole CLIP, which is compared with the given backbone
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from sae.adaptation.heads import CoOpHead, Head, MapleHead
from sae.backbones.prompting import ClipParts
from sae.backbones.prompting_openai import differing_weights, transformers_state
from sae.errors import ArtifactError
from sae.interop.pickles import read_pickle, state_dict_of

_FOLDERS = ("prompt_learner", "MultiModalPromptLearner")
_NUMBERED = re.compile(r"model\.pth\.tar-(\d+)")
_NEXT = "Give the model.pth.tar-N of a CoOp or MaPLe run."


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint meant by a file, its folder, or the folder of the run above: the last epoch."""
    path = Path(path)
    if path.is_file():
        return path
    for folder in (path, *(path / name for name in _FOLDERS)):
        best = folder / "model-best.pth.tar"
        if best.is_file():
            return best
        numbered = [(int(m[1]), p) for p in folder.glob("*") if (m := _NUMBERED.fullmatch(p.name))]
        if numbered:
            return max(numbered)[1]
    raise ArtifactError(path, "no model.pth.tar-N in it", "a run of CoOp or MaPLe", _NEXT)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a .pth.tar file; nothing else of it is kept, and nothing in it is run."""
    path = checkpoint_file(path)
    content = read_pickle(path)
    inner = content.get("state_dict") if isinstance(content, dict) else None
    tensors = state_dict_of(inner)
    if not tensors:
        content_keys = sorted(map(str, content))[:6] if isinstance(content, dict) else type(content)
        raise ArtifactError(path, f"{content_keys}", "a state_dict of tensors", _NEXT)
    return tensors


def read_coop(
    path: str | Path,
    parts: ClipParts,
    class_names: Sequence[str],
    *,
    position: str = "end",
    tail: str = ".",
) -> CoOpHead:
    """A CoOp head for `class_names`; a class-specific context needs them all, in their order."""
    path = checkpoint_file(path)
    tensors = read_tensors(path)
    if "ctx" not in tensors:
        raise ArtifactError(path, f"{sorted(tensors)[:6]}", "CoOp's tensor ctx", _NEXT)
    ctx = tensors["ctx"]
    if ctx.dim() not in (2, 3) or ctx.shape[-1] != parts.d_text:
        raise ArtifactError(
            path,
            f"ctx of shape {tuple(ctx.shape)}",
            f"([classes,] n, {parts.d_text}) for {parts.backbone.id}",
            "Load the backbone that it was trained on.",
        )
    if ctx.dim() == 3 and len(ctx) != len(class_names):
        raise ValueError(
            f"{path} has contexts of {len(ctx)} classes, got {len(class_names)} class names; give "
            "those of training, in their order"
        )
    head = CoOpHead(
        class_names,
        d_text=parts.d_text,
        n_ctx=ctx.shape[-2],
        class_specific=ctx.dim() == 3,
        position=position,
        tail=tail,
    )
    head.ctx.data.copy_(ctx)
    return head.eval().requires_grad_(False).to(parts.backbone.device)


def read_maple(
    path: str | Path,
    parts: ClipParts,
    class_names: Sequence[str],
    *,
    ctx_init: str = "a photo of a",
    tail: str = ".",
) -> MapleHead:
    """A MaPLe head for `class_names`, which may be other ones than those of training.

    `ctx_init` is the phrase of the run's configuration, of which the first n_ctx words are learned
    and the others stay. Raises ValueError if the CLIP in the file is not the given one.
    """
    path = checkpoint_file(path)
    tensors = read_tensors(path)
    own = {
        name.removeprefix("prompt_learner."): value
        for name, value in tensors.items()
        if name.startswith("prompt_learner.")
    }
    own = {n: v for n, v in own.items() if n not in ("token_prefix", "token_suffix")}
    if "ctx" not in own or "proj.weight" not in own:
        raise ArtifactError(
            path, f"{sorted(tensors)[:6]}", "MaPLe's prompt_learner.ctx and .proj", _NEXT
        )
    d_text, d_vision = own["ctx"].shape[1], own["proj.weight"].shape[0]
    if (d_text, d_vision) != (parts.d_text, parts.d_vision):
        raise ArtifactError(
            path,
            f"prompts of widths {d_text} and {d_vision}",
            f"{parts.d_text} and {parts.d_vision} for {parts.backbone.id}",
            "Load the backbone that it was trained on.",
        )
    others = differing_weights(parts, clip_weights(tensors))
    if others:
        raise ValueError(
            f"{path} was trained on another CLIP than {parts.backbone.id}: {len(others)} tensors "
            f"differ, such as {others[0]}; load the backbone that it belongs to"
        )
    n_ctx = len(own["ctx"])
    depth = 1 + sum(name.startswith("compound_prompts_text.") for name in own)
    head = MapleHead(
        class_names,
        d_text=d_text,
        d_vision=d_vision,
        n_ctx=n_ctx,
        depth=depth,
        lead=" ".join(ctx_init.split()[n_ctx:]),
        tail=tail,
    )
    expected = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    if shapes != expected:
        odd = sorted(set(shapes.items()) ^ set(expected.items()))[:4]
        raise ArtifactError(path, f"prompts that do not fit: {odd}", "MaPLe's layout", _NEXT)
    head.load_state_dict({name: value.float() for name, value in own.items()}, strict=True)
    return head.eval().requires_grad_(False).to(parts.backbone.device)


PUBLISHED: dict[str, Callable[..., Head]] = {"coop": read_coop, "maple": read_maple}
"""What reads the published files of a kind of head."""


def clip_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The CLIP inside a MaPLe state dict, in transformers' words."""
    clip = {n: v for n, v in tensors.items() if not n.startswith("prompt_learner.")}
    return transformers_state(clip)
