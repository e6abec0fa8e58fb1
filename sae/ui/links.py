"""The view in the address bar: `?v=1&sae=MARK&img=ex:NAME&p=33,40-42&z=1203&rank=mean&card=1203`.

Knows: the grammar of links and the limits of the models that run. Does not know: Gradio, pixels.
A link is written by anyone: every part is checked on its own, what does not fit is left out, and
told in a clause for the one sentence that misfits.js says. Nothing of a link is ever repeated on screen.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sae.world.scenes import Scene, SceneObject, kind_names

if TYPE_CHECKING:
    from sae.model import SparseAutoencoder

VERSION = "1"
OTHER_SAE = "another SAE made it, so its concepts mean nothing here"
KEYS = ("v", "sae", "img", "p", "z", "rank", "scale", "card")
RANKS = ("max", "mean", "cls")
SCALES = ("dataset", "image")
_NUMBER = re.compile(r"[0-9]{1,7}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_OWN = re.compile(r"own:[a-z0-9]{1,20}", re.ASCII)
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Limits:
    """What the running app can show."""

    examples: tuple[str, ...]
    n_patches: int
    d_sae: int
    has_summary: bool = True
    rank: str = "max"
    """The order that a view has if its link names none."""
    mark: str = ""
    """Of the SAE, see `mark_of`; a link with another one keeps its picture only."""
    has_exemplar: Callable[[int], bool] = lambda _number: False
    """Whether the concept index keeps a picture of this number."""


@dataclass(frozen=True)
class View:
    """What is on screen: at most one of `example`, `scene` and `exemplar` (its number in the concept
    index), patches, concept, switches."""

    example: str | None = None
    scene: Scene | None = None
    patches: tuple[int, ...] = ()
    concept: int | None = None
    rank: str = "max"
    scale: str = "dataset"
    card: int | None = None
    """The concept whose card is open."""
    exemplar: int | None = None


@dataclass
class _LinkCheck:
    """What a link may ask for, and the clauses on what of it did not fit."""

    limits: Limits
    ignored: list[str] = field(default_factory=list)


def parse_view(query: Mapping[str, str], limits: Limits) -> tuple[View, list[str]]:
    """The view a link asks for and, in clauses, what of it was left out. Never raises."""
    check = _LinkCheck(limits)
    if query.get("v", VERSION) != VERSION:
        return View(rank=limits.rank), ["another version of PatchLens made it"]
    if limits.mark and query.get("sae", limits.mark) != limits.mark:
        check.ignored.append(OTHER_SAE)
        query = {key: text for key, text in query.items() if key not in ("z", "card")}
    exemplar = _exemplar(query.get("img"), check.limits)
    example, scene = (None, None) if exemplar is not None else _image(query.get("img"), check)
    lost = "img" in query and example is None and scene is None and exemplar is None
    view = View(
        example=example,
        scene=scene,
        patches=() if lost else _patches(query.get("p"), check),
        concept=_concept(query.get("z"), check),
        rank=_choice(query.get("rank"), _ranks(limits), limits.rank, "order", check),
        scale=_choice(query.get("scale"), SCALES, "dataset", "colour scale", check),
        card=_concept(query.get("card"), check),
        exemplar=exemplar,
    )
    return view, check.ignored


def format_view(view: View, rank: str = "max") -> str:
    """The query of a view, without `?`; `parse_view` gives the equal view back.

    `rank` is the order that goes without saying, as in `Limits`.
    """
    pairs = [("v", VERSION)]
    if view.example is not None:
        pairs.append(("img", f"ex:{view.example}"))
    elif view.scene is not None:
        pairs.append(("img", scene_code(view.scene)))
    elif view.exemplar is not None:
        pairs.append(("img", f"ix:{view.exemplar}"))
    if view.patches:
        pairs.append(("p", ",".join(_ranges(view.patches))))
    if view.concept is not None:
        pairs.append(("z", str(view.concept)))
    if view.rank != rank:
        pairs.append(("rank", view.rank))
    if view.scale != "dataset":
        pairs.append(("scale", view.scale))
    if view.card is not None:
        pairs.append(("card", str(view.card)))
    return "&".join(f"{key}={text}" for key, text in pairs)


def mark_of(sae: "SparseAutoencoder") -> str:
    """Eight letters that tell this SAE from others: of signs in its decoder, alike in every precision."""
    rows = sae.W_dec.detach()[:: max(1, sae.cfg.d_sae // 64)].float().cpu().numpy()
    signs = np.packbits(rows > 0).tobytes()
    return hashlib.sha256(f"{sae.cfg.d_sae} ".encode() + signs).hexdigest()[:8]


def scene_code(scene: Scene) -> str:
    """A scene in letters that need no escaping: `sc:grass.7~dog.noto.48.40.large.0`."""
    parts = [f"{scene.background}.{scene.seed}"]
    parts += [f"{_slug(o.kind)}.{o.style}.{o.x}.{o.y}.{o.size}.{o.angle}" for o in scene.objects]
    return "sc:" + "~".join(parts)


def scene_from_code(code: str) -> Scene:
    """The scene of a `scene_code`; ValueError for anything else."""
    if not code.startswith("sc:") or len(code) > 400:
        raise ValueError("not a scene code: expected sc:background.seed~kind.style.x.y.size.angle")
    slugs = {_slug(name): name for name in kind_names()}
    head, *objects = code[3:].split("~")
    background, seed = head.split(".")
    return Scene(background, tuple(_scene_object(one, slugs) for one in objects), _whole(seed))


def _scene_object(text: str, slugs: Mapping[str, str]) -> SceneObject:
    kind, style, x, y, size, angle = text.split(".")
    return SceneObject(
        slugs.get(kind, ""),
        style,
        _whole(x),
        _whole(y),
        size,
        _whole(angle.removeprefix("-")) * (-1 if angle.startswith("-") else 1),
    )


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII):
        raise ValueError("not a whole number")
    return int(text)


def _slug(name: str) -> str:
    return _SLUG.sub("-", name.lower()).strip("-")


def _image(text: str | None, check: _LinkCheck) -> tuple[str | None, Scene | None]:
    if text is None:
        return None, None
    if text.startswith("ex:") and text[3:] in check.limits.examples:
        return text[3:], None
    if text.startswith("sc:"):
        try:
            return None, scene_from_code(text)
        except ValueError:
            check.ignored.append("its scene cannot be read")
            return None, None
    if not _OWN.fullmatch(text):  # the visitor's own, which the page looks for in the browser
        check.ignored.append("its picture is not known")
    return None, None


def _exemplar(text: str | None, limits: Limits) -> int | None:
    number = (text or "").removeprefix("ix:")
    if not (text or "").startswith("ix:") or not re.fullmatch(r"[0-9]{1,9}", number, re.ASCII):
        return None
    return int(number) if limits.has_exemplar(int(number)) else None


def _patches(text: str | None, check: _LinkCheck) -> tuple[int, ...]:
    if text is None:
        return ()
    patches: set[int] = set()
    parts = text.split(",") if len(text) <= 2000 else []
    sound = bool(parts)
    for part in parts:
        match = _RANGE.fullmatch(part)
        low = int(match[1]) if match else -1
        high = int(match[2] or match[1]) if match else -1
        if 0 <= low <= high < check.limits.n_patches:
            patches.update(range(low, high + 1))
        else:
            sound = False
    if not sound:
        check.ignored.append("some of its patches do not exist")
    return tuple(sorted(patches))


def _concept(text: str | None, check: _LinkCheck) -> int | None:
    if text is None:
        return None
    if _NUMBER.fullmatch(text) and int(text) < check.limits.d_sae:
        return int(text)
    check.ignored.append("its concept does not exist")
    return None


def _choice(
    text: str | None, allowed: Iterable[str], default: str, what: str, check: _LinkCheck
) -> str:
    if text is None or text in allowed:
        return default if text is None else text
    check.ignored.append(f"its {what} does not exist")
    return default


def _ranks(limits: Limits) -> tuple[str, ...]:
    return RANKS if limits.has_summary else RANKS[:2]


def _ranges(patches: Iterable[int]) -> list[str]:
    """Runs of three or more as `a-b`, the rest one by one; the same as links.js writes."""
    runs: list[list[int]] = []
    for patch in sorted(set(patches)):
        if runs and patch == runs[-1][-1] + 1:
            runs[-1].append(patch)
        else:
            runs.append([patch])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(patch) for patch in run]
    return parts
