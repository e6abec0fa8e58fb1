"""The heads: zero-shot, CoOp, VPT, MaPLe and a linear probe, on a frozen CLIP; HEADS has them all.

Knows what each of them is called, what it learns, at which rate by default, and how class weights
and vision prompts come of it. Knows nothing of data, training or files. A head keeps no reference
to a CLIP: it is given its parts when needed. How to add a head of one's own: docs/extending.md.

Zhou et al., CoOp (IJCV 2022); Jia et al., VPT (ECCV 2022); Khattak et al., MaPLe (CVPR 2023).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sae.adaptation.classifier import Classifier, checked_classes
from sae.backbones.prompting import ClipParts, VisionPrompts
from sae.backbones.text import averaged_text_features, checked_templates, phrases_of

POSITIONS = ("end", "middle", "front")
"""Where CoOp puts the class name: behind, inside or before the context."""


class Words(Protocol):
    """What a task says to a fresh head: its class names, and how to speak of them."""

    base: tuple[str, ...]
    templates: tuple[str, ...]
    start: str
    """What learned words begin as, such as "a photo of a"."""
    lead: str
    """Fixed words between learned ones and the name."""
    tail: str


class Options(Protocol):
    """What a person may choose of a fresh head; None leaves it to the head."""

    n_ctx: int | None
    depth: int | None
    class_specific: bool
    position: str


class Head(nn.Module):
    """What makes a Classifier of class names. `settings` and `class_names` rebuild it."""

    kind: ClassVar[str]
    """Its name in files and commands (--method)."""
    label: ClassVar[str]
    """Its name for people."""
    learning_rate: ClassVar[float] = 0.0
    epochs: ClassVar[int] = 0
    """Both by default; with 0 epochs nothing is trained."""
    weight_decay_share: ClassVar[float] = 1.0
    """How much of the weight decay that is asked for it is trained with."""
    usual_n_ctx: ClassVar[int | None] = None
    """How many tokens it learns if nobody says; None where it learns none."""
    any_classes: bool = True
    """Whether it can classify other classes than those it was trained on."""

    def __init__(self, class_names: Sequence[str], **settings: Any) -> None:
        super().__init__()
        self.class_names = checked_classes(class_names)
        self.settings = settings
        self.any_classes = self.takes_any_classes(settings)

    @classmethod
    def takes_any_classes(cls, settings: Mapping[str, Any]) -> bool:  # noqa: ARG003
        """`any_classes` of a head with these settings."""
        return cls.any_classes

    @classmethod
    @abstractmethod
    def fresh(cls, parts: ClipParts, words: Words, options: Options) -> Self:
        """A head to be trained, for the classes `words.base`."""

    @abstractmethod
    def class_weights(
        self, parts: ClipParts, class_names: Sequence[str]
    ) -> Float[Tensor, "classes d_proj"]:
        """(C, d_proj), differentiable."""

    def vision_prompts(self) -> VisionPrompts | None:
        """What the vision tower is prompted with, differentiable."""
        return None

    def bias(self, n_classes: int) -> Float[Tensor, " classes"]:
        """(C,)."""
        return torch.zeros(n_classes)

    def classifier(
        self, parts: ClipParts, class_names: Sequence[str] | None = None, *, name: str | None = None
    ) -> Classifier:
        """Ready to classify images into `class_names` (default: those of training), frozen."""
        names = self.class_names if class_names is None else checked_classes(class_names)
        if not self.any_classes and names != self.class_names:
            raise ValueError(
                f"this {self.kind} head knows only the classes it was trained on "
                f"({', '.join(self.class_names[:8])} …); use those, or another head"
            )
        with torch.no_grad():
            prompts = self.vision_prompts()
            return Classifier(
                name or self.kind,
                names,
                self.class_weights(parts, names).float(),
                parts.scale,
                self.bias(len(names)).float().to(parts.backbone.device),
                prompts and VisionPrompts(prompts.shallow, tuple(prompts.deep)),
            )


HEADS: dict[str, type[Head]] = {}
"""Every head by its kind, in the order in which they are shown; `register_head` adds to it."""


def register_head(head: type[Head]) -> type[Head]:
    """Make a head known to files, commands and screens; a decorator.

    ValueError for a class without kind or label, or a kind that is taken by another class.
    """
    kind, label = getattr(head, "kind", None), getattr(head, "label", None)
    if not (isinstance(kind, str) and kind.isidentifier() and isinstance(label, str) and label):
        raise ValueError(
            f"{head.__name__} has kind {kind!r} and label {label!r}; expected a name such as "
            "'my_head', and words for people"
        )
    taken = HEADS.get(kind, head)
    if (taken.__module__, taken.__qualname__) != (head.__module__, head.__qualname__):
        raise ValueError(f"head kind {kind!r} is {taken.__name__}'s; give another kind")
    HEADS[kind] = head  # a notebook's cell that is run again replaces its own
    return head


@register_head
class ZeroShotHead(Head):
    """The mean of unit text features over templates, made a unit vector; nothing is learned."""

    kind = "zero_shot"
    label = "Zero-shot (as it is)"

    def __init__(self, class_names: Sequence[str], *, templates: Sequence[str]) -> None:
        super().__init__(class_names, templates=checked_templates(templates))

    @classmethod
    def fresh(cls, parts: ClipParts, words: Words, options: Options) -> Self:  # noqa: ARG003
        return cls(words.base, templates=words.templates)

    def class_weights(
        self, parts: ClipParts, class_names: Sequence[str]
    ) -> Float[Tensor, "classes d_proj"]:
        return template_features(parts, class_names, self.settings["templates"])


class LearnedWords(Head):
    """A head whose `ctx` (…, n_ctx, d_text) are learned words of the text tower."""

    ctx: nn.Parameter

    def start_from(self, parts: ClipParts, text: str) -> None:
        """Begin with the embeddings of `text`, which must have n_ctx tokens or more."""
        with torch.no_grad():
            self.ctx.copy_(embedded_words(parts, text, self.settings["n_ctx"]))

    def begun(self, parts: ClipParts, text: str) -> Self:
        """Itself, begun with `text` if that is long enough, else as it is."""
        if len(parts.words(text)) >= self.settings["n_ctx"]:
            self.start_from(parts, text)
        return self


@register_head
class CoOpHead(LearnedWords):
    """Learned context words in front of, around or behind the class name."""

    kind = "coop"
    label = "CoOp (learned words)"
    learning_rate, epochs = 5e-3, 50
    usual_n_ctx = 4

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        d_text: int,
        n_ctx: int = usual_n_ctx,
        class_specific: bool = False,
        position: str = "end",
        lead: str = "",
        tail: str = ".",
    ) -> None:
        """`lead` are fixed words between context and name, `tail` what follows the name."""
        if position not in POSITIONS:
            raise ValueError(f"position {position!r}: expected one of {', '.join(POSITIONS)}")
        if n_ctx < 1:
            raise ValueError(f"n_ctx must be at least 1, got {n_ctx}")
        super().__init__(
            class_names,
            d_text=d_text,
            n_ctx=n_ctx,
            class_specific=class_specific,
            position=position,
            lead=lead,
            tail=tail,
        )
        shape = (len(self.class_names), n_ctx, d_text) if class_specific else (n_ctx, d_text)
        self.ctx = nn.Parameter(torch.randn(shape) * 0.02)

    @classmethod
    def takes_any_classes(cls, settings: Mapping[str, Any]) -> bool:
        return not settings.get("class_specific")

    @classmethod
    def fresh(cls, parts: ClipParts, words: Words, options: Options) -> Self:
        head = cls(
            words.base,
            d_text=parts.d_text,
            n_ctx=options.n_ctx or cls.usual_n_ctx,
            class_specific=options.class_specific,
            position=options.position,
            tail=words.tail,
        )
        return head.begun(parts, words.start)

    def class_weights(
        self, parts: ClipParts, class_names: Sequence[str]
    ) -> Float[Tensor, "classes d_proj"]:
        s = self.settings
        prompts = [
            Prompt.of(parts, name, s["n_ctx"], s["position"], s["lead"], s["tail"])
            for name in class_names
        ]
        return prompted_features(parts, prompts, self.ctx, ())


@register_head
class VPTHead(Head):
    """Learned tokens in the vision tower (deep: fresh ones at the first blocks); text as it is."""

    kind = "vpt"
    label = "VPT (learned patches)"
    learning_rate, epochs = 1e-2, 20
    usual_n_ctx = 4

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        d_vision: int,
        templates: Sequence[str],
        n_ctx: int = usual_n_ctx,
        depth: int = 1,
    ) -> None:
        """`depth` 1 is VPT-shallow; d prompts the inputs of the first d blocks."""
        if n_ctx < 1 or depth < 1:
            raise ValueError(f"n_ctx and depth must be at least 1, got {n_ctx} and {depth}")
        templates = checked_templates(templates)
        super().__init__(
            class_names, d_vision=d_vision, templates=templates, n_ctx=n_ctx, depth=depth
        )
        self.shallow = nn.Parameter(torch.randn(n_ctx, d_vision) * 0.02)
        self.deep = nn.ParameterList(
            nn.Parameter(torch.randn(n_ctx, d_vision) * 0.02) for _ in range(depth - 1)
        )

    @classmethod
    def fresh(cls, parts: ClipParts, words: Words, options: Options) -> Self:
        return cls(
            words.base,
            d_vision=parts.d_vision,
            templates=words.templates,
            n_ctx=options.n_ctx or cls.usual_n_ctx,
            depth=prompted_depth(parts, options.depth),
        )

    def class_weights(
        self, parts: ClipParts, class_names: Sequence[str]
    ) -> Float[Tensor, "classes d_proj"]:
        return template_features(parts, class_names, self.settings["templates"])

    def vision_prompts(self) -> VisionPrompts:
        return VisionPrompts(self.shallow, tuple(self.deep))


@register_head
class MapleHead(LearnedWords):
    """Learned text tokens at the first `depth` blocks, each projected to a vision token."""

    kind = "maple"
    label = "MaPLe (both, coupled)"
    learning_rate, epochs = 5e-3, 20
    usual_n_ctx = 2

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        d_text: int,
        d_vision: int,
        n_ctx: int = usual_n_ctx,
        depth: int = 9,
        lead: str = "of a",
        tail: str = ".",
    ) -> None:
        """The published prompt is "a photo of a NAME." with the first two words learned."""
        if n_ctx < 1 or depth < 1:
            raise ValueError(f"n_ctx and depth must be at least 1, got {n_ctx} and {depth}")
        super().__init__(
            class_names,
            d_text=d_text,
            d_vision=d_vision,
            n_ctx=n_ctx,
            depth=depth,
            lead=lead,
            tail=tail,
        )
        self.ctx = nn.Parameter(torch.randn(n_ctx, d_text) * 0.02)
        self.proj = nn.Linear(d_text, d_vision)
        self.compound_prompts_text = nn.ParameterList(
            nn.Parameter(torch.randn(n_ctx, d_text) * 0.02) for _ in range(depth - 1)
        )
        self.compound_prompt_projections = nn.ModuleList(
            nn.Linear(d_text, d_vision) for _ in range(depth - 1)
        )

    @classmethod
    def fresh(cls, parts: ClipParts, words: Words, options: Options) -> Self:
        head = cls(
            words.base,
            d_text=parts.d_text,
            d_vision=parts.d_vision,
            n_ctx=options.n_ctx or cls.usual_n_ctx,
            depth=prompted_depth(parts, options.depth),
            lead=words.lead,
            tail=words.tail,
        )
        return head.begun(parts, words.start)

    def class_weights(
        self, parts: ClipParts, class_names: Sequence[str]
    ) -> Float[Tensor, "classes d_proj"]:
        s = self.settings
        prompts = [
            Prompt.of(parts, name, s["n_ctx"], "end", s["lead"], s["tail"]) for name in class_names
        ]
        return prompted_features(parts, prompts, self.ctx, tuple(self.compound_prompts_text))

    def vision_prompts(self) -> VisionPrompts:
        pairs = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return VisionPrompts(self.proj(self.ctx), tuple(layer(text) for layer, text in pairs))


@register_head
class LinearHead(Head):
    """Logistic regression on unit image features: the reference that needs no text."""

    kind = "linear"
    label = "Linear probe"
    learning_rate, epochs = 1e-1, 100
    weight_decay_share = 0.1
    any_classes = False

    def __init__(self, class_names: Sequence[str], *, d_proj: int) -> None:
        super().__init__(class_names, d_proj=d_proj)
        self.weight = nn.Parameter(torch.zeros(len(self.class_names), d_proj))
        self.offset = nn.Parameter(torch.zeros(len(self.class_names)))

    @classmethod
    def fresh(cls, parts: ClipParts, words: Words, options: Options) -> Self:  # noqa: ARG003
        return cls(words.base, d_proj=parts.d_proj)

    def class_weights(
        self,
        parts: ClipParts,  # noqa: ARG002
        class_names: Sequence[str],  # noqa: ARG002
    ) -> Float[Tensor, "classes d_proj"]:
        return self.weight

    def bias(self, n_classes: int) -> Float[Tensor, " classes"]:  # noqa: ARG002
        return self.offset


def prompted_depth(parts: ClipParts, wanted: int | None) -> int:
    """How many vision blocks are prompted: 9 and all but one at most, or as wanted; ValueError for
    more than there are."""
    depth = wanted or max(1, min(9, parts.n_vision_layers - 1))
    if depth > parts.n_vision_layers:
        raise ValueError(
            f"--depth {depth} is more than the {parts.n_vision_layers} blocks of "
            f"{parts.backbone.id}; lower it"
        )
    return depth


class Prompt:
    """One class's prompt: its token numbers, and which places hold learned context."""

    def __init__(self, row: list[int], context: list[int]) -> None:
        self.row, self.context = row, context

    @classmethod
    def of(
        cls, parts: ClipParts, name: str, n_ctx: int, position: str, lead: str, tail: str
    ) -> "Prompt":
        """The prompt of a class; see CoOpHead for the arguments."""
        before = parts.words(lead) if lead else []
        suffix = parts.words(f"{name}{tail}")
        n_name = len(parts.words(name))
        if not n_name:
            raise ValueError(f"class name {name!r} has no tokens; give it a name with letters")
        if position == "end":
            return cls([0] * n_ctx + before + suffix, list(range(1, n_ctx + 1)))
        first = n_ctx // 2 if position == "middle" else 0
        row = [0] * first + suffix[:n_name] + [0] * (n_ctx - first) + before + suffix[n_name:]
        places = [*range(first), *range(first + n_name, n_ctx + n_name)]
        return cls(row, [place + 1 for place in places])


def prompted_features(
    parts: ClipParts,
    prompts: Sequence[Prompt],
    ctx: Float[Tensor, "... n_ctx d_text"],
    deep: tuple[Float[Tensor, "prompts d_text"], ...],
) -> Float[Tensor, "classes d_proj"]:
    """Unit text features (C, d_proj) of prompts whose context places hold `ctx`."""
    ids, ends = parts.text_ids([prompt.row for prompt in prompts])
    embedded = parts.embed(ids)
    ctx = ctx.to(embedded.device, embedded.dtype)
    rows = torch.arange(len(prompts), device=ids.device)[:, None]
    places = torch.tensor([prompt.context for prompt in prompts], device=ids.device)
    spread = ctx if ctx.dim() == 3 else ctx.expand(len(prompts), -1, -1)
    embedded = embedded.index_put((rows.expand_as(places), places), spread)
    return F.normalize(parts.text_features(embedded, ends, deep).float(), dim=-1)


def template_features(
    parts: ClipParts, class_names: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "classes d_proj"]:
    """Unit vectors (C, d_proj) of class names in plain templates."""
    phrases = [phrases_of(name, templates) for name in class_names]
    return averaged_text_features(parts.unit_text_features, phrases)


def embedded_words(parts: ClipParts, text: str, n_ctx: int) -> Float[Tensor, "n_ctx d_text"]:
    """(n_ctx, d_text): embeddings of the first n_ctx tokens of `text`."""
    words = parts.words(text)
    if len(words) < n_ctx:
        raise ValueError(f"{text!r} has {len(words)} tokens, expected n_ctx = {n_ctx} or more")
    return parts.embed(torch.tensor([words[:n_ctx]], device=parts.backbone.device))[0].float()
