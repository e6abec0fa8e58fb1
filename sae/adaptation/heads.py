"""The heads: zero-shot, CoOp, VPT, MaPLe and a linear probe, on a frozen CLIP.

Knows what each of them learns and how class weights and vision prompts come of it. Knows nothing of
data, training or files. A head keeps no reference to a CLIP: it is given its parts when needed.

Zhou et al., CoOp (IJCV 2022); Jia et al., VPT (ECCV 2022); Khattak et al., MaPLe (CVPR 2023).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sae.adaptation.classes import checked_classes, checked_templates
from sae.adaptation.classifier import Classifier
from sae.adaptation.prompted_text import (
    Prompt,
    embedded_words,
    prompted_features,
    template_features,
)
from sae.backbones.prompting import ClipParts, VisionPrompts

POSITIONS = ("end", "middle", "front")
"""Where CoOp puts the class name: behind, inside or before the context."""


class Head(nn.Module):
    """What makes a Classifier of class names. `settings` and `class_names` rebuild it."""

    kind: ClassVar[str]
    any_classes: bool = True
    """Whether it can classify other classes than those it was trained on."""

    def __init__(self, class_names: Sequence[str], **settings: Any) -> None:
        super().__init__()
        self.class_names = checked_classes(class_names)
        self.settings = settings

    @abstractmethod
    def class_weights(self, parts: ClipParts, class_names: Sequence[str]) -> Tensor:
        """(C, d_proj), differentiable."""

    def vision_prompts(self) -> VisionPrompts | None:
        """What the vision tower is prompted with, differentiable."""
        return None

    def bias(self, n_classes: int) -> Tensor:
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


class ZeroShotHead(Head):
    """The mean of unit text features over templates, made a unit vector; nothing is learned."""

    kind = "zero_shot"

    def __init__(self, class_names: Sequence[str], *, templates: Sequence[str]) -> None:
        super().__init__(class_names, templates=checked_templates(templates))

    def class_weights(self, parts: ClipParts, class_names: Sequence[str]) -> Tensor:
        return template_features(parts, class_names, self.settings["templates"])


class CoOpHead(Head):
    """Learned context words in front of, around or behind the class name."""

    kind = "coop"

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        d_text: int,
        n_ctx: int = 4,
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
        self.any_classes = not class_specific
        shape = (len(self.class_names), n_ctx, d_text) if class_specific else (n_ctx, d_text)
        self.ctx = nn.Parameter(torch.randn(shape) * 0.02)

    def start_from(self, parts: ClipParts, text: str) -> None:
        """Begin with the embeddings of `text`, which must have n_ctx tokens or more."""
        with torch.no_grad():
            self.ctx.copy_(embedded_words(parts, text, self.settings["n_ctx"]))

    def class_weights(self, parts: ClipParts, class_names: Sequence[str]) -> Tensor:
        s = self.settings
        prompts = [
            Prompt.of(parts, name, s["n_ctx"], s["position"], s["lead"], s["tail"])
            for name in class_names
        ]
        return prompted_features(parts, prompts, self.ctx, ())


class VPTHead(Head):
    """Learned tokens in the vision tower (deep: fresh ones at the first blocks); text as it is."""

    kind = "vpt"

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        d_vision: int,
        templates: Sequence[str],
        n_ctx: int = 4,
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

    def class_weights(self, parts: ClipParts, class_names: Sequence[str]) -> Tensor:
        return template_features(parts, class_names, self.settings["templates"])

    def vision_prompts(self) -> VisionPrompts:
        return VisionPrompts(self.shallow, tuple(self.deep))


class MapleHead(Head):
    """Learned text tokens at the first `depth` blocks, each projected to a vision token."""

    kind = "maple"

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        d_text: int,
        d_vision: int,
        n_ctx: int = 2,
        depth: int = 9,
        lead: str = "of a",
        tail: str = ".",
    ) -> None:
        """The official prompt is "a photo of a NAME." with the first two words learned."""
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

    def start_from(self, parts: ClipParts, text: str) -> None:
        """Begin with the embeddings of the first n_ctx tokens of `text`."""
        with torch.no_grad():
            self.ctx.copy_(embedded_words(parts, text, self.settings["n_ctx"]))

    def class_weights(self, parts: ClipParts, class_names: Sequence[str]) -> Tensor:
        s = self.settings
        prompts = [
            Prompt.of(parts, name, s["n_ctx"], "end", s["lead"], s["tail"]) for name in class_names
        ]
        return prompted_features(parts, prompts, self.ctx, tuple(self.compound_prompts_text))

    def vision_prompts(self) -> VisionPrompts:
        pairs = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return VisionPrompts(self.proj(self.ctx), tuple(layer(text) for layer, text in pairs))


class LinearHead(Head):
    """Logistic regression on unit image features: the reference that needs no text."""

    kind = "linear"
    any_classes = False

    def __init__(self, class_names: Sequence[str], *, d_proj: int) -> None:
        super().__init__(class_names, d_proj=d_proj)
        self.weight = nn.Parameter(torch.zeros(len(self.class_names), d_proj))
        self.offset = nn.Parameter(torch.zeros(len(self.class_names)))

    def class_weights(self, parts: ClipParts, class_names: Sequence[str]) -> Tensor:  # noqa: ARG002
        return self.weight

    def bias(self, n_classes: int) -> Tensor:  # noqa: ARG002
        return self.offset


HEADS: dict[str, type[Head]] = {
    head.kind: head for head in (ZeroShotHead, CoOpHead, VPTHead, MapleHead, LinearHead)
}
