"""Class names in prompts, to unit text features: with fixed templates or with learned context.

Knows token rows and which places of them are learned; knows nothing of heads.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.backbones.prompting import ClipParts


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
    parts: ClipParts, prompts: Sequence[Prompt], ctx: Tensor, deep: tuple[Tensor, ...]
) -> Tensor:
    """Unit text features (C, d_proj) of prompts whose context places hold `ctx`."""
    ids, ends = parts.text_ids([prompt.row for prompt in prompts])
    embedded = parts.embed(ids)
    ctx = ctx.to(embedded.device, embedded.dtype)
    rows = torch.arange(len(prompts), device=ids.device)[:, None]
    places = torch.tensor([prompt.context for prompt in prompts], device=ids.device)
    spread = ctx if ctx.dim() == 3 else ctx.expand(len(prompts), -1, -1)
    embedded = embedded.index_put((rows.expand_as(places), places), spread)
    return F.normalize(parts.text_features(embedded, ends, deep).float(), dim=-1)


@torch.no_grad()
def template_features(
    parts: ClipParts, class_names: Sequence[str], templates: Sequence[str], batch: int = 256
) -> Tensor:
    """Unit vectors (C, d_proj): the mean over templates of unit text features, made a unit vector."""
    rows = [parts.words(template.format(name)) for name in class_names for template in templates]
    found = []
    for start in range(0, len(rows), batch):
        ids, ends = parts.text_ids(rows[start : start + batch])
        found.append(F.normalize(parts.text_features(parts.embed(ids), ends).float(), dim=-1))
    mean = torch.cat(found).unflatten(0, (len(class_names), len(templates))).mean(1)
    return F.normalize(mean, dim=-1)


def embedded_words(parts: ClipParts, text: str, n_ctx: int) -> Tensor:
    """(n_ctx, d_text): embeddings of the first n_ctx tokens of `text`."""
    words = parts.words(text)
    if len(words) < n_ctx:
        raise ValueError(f"{text!r} has {len(words)} tokens, expected n_ctx = {n_ctx} or more")
    return parts.embed(torch.tensor([words[:n_ctx]], device=parts.backbone.device))[0].float()
