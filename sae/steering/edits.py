"""What to change: edits of latents, where they apply, and a request that a file can hold.

Knows plain values only: no tensors, models or pictures. Everything that a person, a link or a file
may hand over is checked here once, strictly; what depends on a model is checked by the Steerer.
Also edits that work (`insert`, `suppress`), at the doses that `training/bench/steering.py` measures on
the bundled models, and the Python that repeats a request.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Mode = Literal["set", "add", "scale", "clamp", "ablate", "only"]
Where = Literal["all", "patches", "cls", "region"]
Units = Literal["max", "raw"]

MODES: tuple[str, ...] = get_args(Mode)
WHERE: tuple[str, ...] = get_args(Where)
UNITS: tuple[str, ...] = get_args(Units)
MEASURED = ("set", "add", "clamp")
"""Modes whose strength is an activation, and so has units."""
MAX_STRENGTH = 1e4
"""Largest strength, in either unit; far beyond it half precision overflows."""
MAX_EDITS = 256
MAX_PROMPT = 2000
MAX_NEW_TOKENS = 512
MAX_PATCHES = 16_384
INSERT_DOSE = 4.0
SUPPRESS_DOSE = -1.0
"""The least for one latent; several share SUPPRESS_SHARED."""
SUPPRESS_SHARED = -2.0


@dataclass(frozen=True)
class Scope:
    """The tokens that an edit reaches.

    where: "all" tokens; "patches" (no CLS, no registers); "cls"; "region".
    A region is `patches`, numbers on the picture's patch grid row by row, or `box`, (left, top,
    right, bottom) as fractions of the upright picture; in a model that cuts the picture into tiles
    it reaches the same place in every tile. `above`: only tokens on which the latent itself exceeds
    this activation, in the edit's units.
    """

    where: Where = "all"
    patches: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    above: float | None = None

    def __post_init__(self) -> None:
        if self.where not in WHERE:
            raise ValueError(f"scope where={self.where!r}: expected one of {', '.join(WHERE)}")
        object.__setattr__(self, "patches", tuple(self.patches))
        if len(self.patches) > MAX_PATCHES or any(not _whole(n) or n < 0 for n in self.patches):
            raise ValueError(
                f"region: patches are whole numbers from 0, at most {MAX_PATCHES}, got "
                f"{str(self.patches)[:60]}"
            )
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(self.box))
        given = bool(self.patches) + (self.box is not None)
        if (self.where == "region") != (given == 1):
            raise ValueError(
                f"scope {self.where!r} with {len(self.patches)} patches and box {self.box}: a region "
                "needs either patches or a box, and nothing else may have them"
            )
        if self.above is not None:
            object.__setattr__(self, "above", _number("above", self.above))


EVERYWHERE = Scope()


@dataclass(frozen=True)
class Edit:
    """One change of one latent z of each token in scope.

    mode:   set     z' = strength                    add    z' = z + strength
            scale   z' = strength · z                clamp  z' = min(z, strength)
            ablate  z' = 0                           only   every latent that no edit names → 0
    strength: multiples of the latent's own maximum over the index with units "max", the SAE's own
    activation with "raw"; a plain factor for scale; without meaning for ablate and only.
    """

    latent: int
    mode: Mode = "set"
    strength: float = 0.0
    units: Units = "max"
    scope: Scope = EVERYWHERE

    def __post_init__(self) -> None:
        if not _whole(self.latent) or self.latent < 0:
            raise ValueError(f"a latent is a whole number from 0, got {self.latent!r}")
        object.__setattr__(self, "latent", int(self.latent))
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r}: expected one of {', '.join(MODES)}")
        if self.units not in UNITS:
            raise ValueError(f"units {self.units!r}: expected one of {', '.join(UNITS)}")
        if not isinstance(self.scope, Scope):
            raise ValueError(f"scope: expected a Scope, got {type(self.scope).__name__}")
        name = f"strength of latent {self.latent}"
        object.__setattr__(self, "strength", _number(name, self.strength))


@dataclass(frozen=True)
class SteerRequest:
    """Everything that decides what a steered model answers, but for the picture and the models.

    `error_term` keeps what the SAE cannot explain: h + decode(z') - decode(z); without it, the
    paper's replacement decode(z'). `control_seed` chooses the random latent of the control.
    """

    prompt: str
    edits: tuple[Edit, ...] = ()
    error_term: bool = True
    max_new_tokens: int = 64
    answer_start: str = ""
    control_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt", "answer_start"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > MAX_PROMPT:
                got = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
                raise ValueError(f"{name}: expected text of at most {MAX_PROMPT:,}, got {got}")
        if not self.prompt.strip():
            raise ValueError("the prompt is empty; ask something, such as 'describe the image'")
        object.__setattr__(self, "edits", tuple(self.edits))
        if len(self.edits) > MAX_EDITS or not all(isinstance(e, Edit) for e in self.edits):
            kinds = sorted({type(edit).__name__ for edit in self.edits})
            raise ValueError(
                f"edits: expected at most {MAX_EDITS} Edit, got {len(self.edits)} of {kinds}"
            )
        if not isinstance(self.error_term, bool):
            raise ValueError(f"error_term is true or false, got {self.error_term!r}")
        if not _whole(self.max_new_tokens) or not 1 <= self.max_new_tokens <= MAX_NEW_TOKENS:
            raise ValueError(
                f"max_new_tokens is a whole number from 1 to {MAX_NEW_TOKENS}, got "
                f"{self.max_new_tokens!r}"
            )
        if not _whole(self.control_seed) or not 0 <= self.control_seed < 2**31:
            raise ValueError(f"control_seed is a whole number from 0, got {self.control_seed!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is left at its default is left out of edits."""
        return asdict(self) | {"edits": [_plain(edit) for edit in self.edits]}

    @classmethod
    def from_json(cls, given: Any) -> "SteerRequest":
        """The request that `to_json` wrote. Raises ValueError for anything else."""
        given = dict(_fields_of("request", given, cls))
        edits = given.get("edits", [])
        if not isinstance(edits, Sequence) or isinstance(edits, str) or len(edits) > MAX_EDITS:
            raise ValueError(f"edits: expected a list of at most {MAX_EDITS}")
        return cls(**given | {"edits": tuple(edit_from_json(edit) for edit in edits)})


def edit_from_json(given: Any) -> Edit:
    """An Edit from plain values; ValueError for unknown names, wrong types or bad numbers."""
    given = dict(_fields_of("edit", given, Edit))
    if "latent" not in given:
        raise ValueError("edit: expected a latent, got none")
    if "scope" in given:
        scope = dict(_fields_of("scope", given["scope"], Scope))
        for name in ("patches", "box"):
            value = scope.get(name)
            if value is not None and (not isinstance(value, Sequence) or isinstance(value, str)):
                raise ValueError(f"scope {name}: expected a list of numbers")
        given["scope"] = Scope(**scope)
    return Edit(**given)


def as_edits(
    edits: Mapping[int, float] | Iterable[Edit], mode: Mode, units: Units, scope: Scope
) -> tuple[Edit, ...]:
    """Edits from {latent: strength}, all with one mode, units and scope, or Edits as they are."""
    if isinstance(edits, Mapping):
        return tuple(Edit(latent, mode, value, units, scope) for latent, value in edits.items())
    if isinstance(edits, str) or not isinstance(edits, Iterable):
        raise ValueError(
            f"edits: expected {{latent: strength}} or a list of Edit, got {type(edits).__name__}"
        )
    return tuple(edits)


def insert(
    latent: int, patches: Sequence[int] | None = None, dose: float = INSERT_DOSE
) -> tuple[Edit, ...]:
    """Put a concept into a region of the picture: there the latent alone, at `dose` times its
    maximum, instead of what was there. Without `patches`, on every token, and all else stays."""
    if patches is None:
        return (Edit(latent, "set", dose),)
    region = Scope("region", patches=tuple(patches))
    return (Edit(latent, "set", dose, scope=region), Edit(latent, "only", scope=region))


def suppress(latents: int | Sequence[int], dose: float | None = None) -> tuple[Edit, ...]:
    """Take a concept out: each of its latents to `dose` times its maximum on the tokens on which it fires.

    Give the eight latents that tell it best, where they are known: an object is told by several, so that
    eight at a quarter of their maximum below zero do better than one at all of it, and switching one off
    (dose 0) is far too little. The usual dose is -2 shared by all, and for one or two latents -1 each.
    """
    chosen = latents if isinstance(latents, Sequence) else (latents,)
    usual = max(SUPPRESS_DOSE, SUPPRESS_SHARED / max(1, len(chosen)))
    strength = usual if dose is None else dose
    return tuple(Edit(latent, "set", strength, scope=Scope(above=0.0)) for latent in chosen)


def python_for(
    request: SteerRequest,
    model: str = "bundled",
    sae: str | None = None,
    image: str = "picture.png",
    *,
    opened: str | None = None,
    imports: Sequence[str] = ("from sae.images import open_image",),
) -> str:
    """A script of a few lines that asks the same; every value is written as a literal.

    The picture is the file `image`, or the expression `opened`, which needs `imports`.
    """
    loaded = repr(model) if sae is None else f"{model!r}, {sae!r}"
    edits = "".join(f"    {as_python(edit)},\n" for edit in request.edits)
    own = ("from sae import Steerer", "from sae.steering import Edit, Scope")
    lines = "\n".join(sorted({*own, *imports}))
    picture = f"open_image({image!r})" if opened is None else opened
    start = f", answer_start={request.answer_start!r}" if request.answer_start else ""
    return (
        f"{lines}\n\n"
        f"steerer = Steerer.from_pretrained({loaded})\n"
        f"image = {picture}\n"
        f"prepared = steerer.prepare(image, {request.prompt!r}{start})\n"
        f"edits = [\n{edits}]\n"
        "captions = steerer.generate(\n"
        f"    prepared, edits=edits, error_term={request.error_term}, "
        f"max_new_tokens={request.max_new_tokens}\n"
        ")\n"
        'print(captions.original, captions.steered, sep="\\n")\n'
    )


def _plain(edit: Edit) -> dict[str, Any]:
    scope = {name: v for name, v in asdict(edit.scope).items() if v != getattr(EVERYWHERE, name)}
    scope = {name: list(v) if isinstance(v, tuple) else v for name, v in scope.items()}
    plain = {"latent": edit.latent, "mode": edit.mode, "strength": edit.strength}
    return plain | {"units": edit.units} | ({"scope": scope} if scope else {})


def _fields_of(name: str, given: Any, kind: type) -> Mapping[str, Any]:
    known = [field.name for field in fields(kind)]
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}: expected an object with {known}, got {type(given).__name__}")
    unknown = [str(key)[:40] for key in given if key not in known]
    if unknown:
        raise ValueError(f"{name}: unknown {unknown[:4]}; expected {known}")
    return given


def _checked_box(box: Any) -> tuple[float, ...]:
    numbers = tuple(_number("box", value) for value in box)
    inside = len(numbers) == 4 and all(0 <= value <= 1 for value in numbers)
    if not inside or numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
        raise ValueError(
            f"region: box {numbers} lies outside the picture or is empty; expected (left, top, "
            "right, bottom) between 0 and 1"
        )
    return numbers


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) and not hasattr(value, "item"):
        raise ValueError(f"{name}: expected a number, got {value!r:.40}")
    value = float(value)
    if not math.isfinite(value) or abs(value) > MAX_STRENGTH:
        raise ValueError(
            f"{name} is {value:g}; expected a finite number between -{MAX_STRENGTH:g} and "
            f"{MAX_STRENGTH:g}"
        )
    return value


def _whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def as_python(edit: Edit) -> str:
    """The edit as a literal; the script imports Edit and Scope."""
    scope = edit.scope
    text = f"Edit({edit.latent}, {edit.mode!r}, {edit.strength!r}, {edit.units!r}"
    if scope == EVERYWHERE:
        return f"{text})"
    place = f"{scope.where!r}"
    place += f", patches={scope.patches!r}" if scope.patches else ""
    place += f", box={scope.box!r}" if scope.box is not None else ""
    place += f", above={scope.above!r}" if scope.above is not None else ""
    return f"{text}, Scope({place}))"
