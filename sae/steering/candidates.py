"""Which latents would make the model say a word? A first-order guess for all, then the truth for few.

Knows gradients and the SAE; the guess for a latent s set to the activation a on every token in
reach is   sum_t (a - z_t) * (d logit / d h_t) . W_dec[s]
and costs one backward pass for all latents together. The best are then run and compared.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float32
from torch import Tensor

from sae.steering.activations import check_edits
from sae.steering.answers import word_tokens
from sae.steering.edits import EVERYWHERE, Edit, Scope

if TYPE_CHECKING:
    from PIL import Image

    from sae.steering.steerer import Prepared, Steerer

MAX_VERIFIED = 32


@dataclass(frozen=True)
class Candidate:
    """A latent that may move the word, and whether it does."""

    edit: Edit
    """Set to `dose` times its maximum (turned up), or ablated (turned off)."""
    name: str
    """The concept's name, "" if it has none."""
    predicted: float
    """Change of the word's logit, by the gradient."""
    actual: float
    """Change of the word's logit when run."""
    before: float
    """Probability that the word comes next, as it is."""
    after: float
    """Probability with the edit."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def candidates(
    steerer: "Steerer",
    image: "Image.Image | Prepared",
    word: str,
    prompt: str | None = None,
    *,
    answer_start: str = "",
    dose: float = 1.0,
    scope: Scope = EVERYWHERE,
    less: bool = False,
    n: int = 8,
    latents: Iterable[int] | None = None,
) -> list[Candidate]:
    """The `n` latents that by gradient raise the word's next-token logit most, run and sorted by
    what they truly do; with `less`, those that lower it most.

    Considers setting each latent (or each of `latents`) to `dose` times its own maximum on the
    tokens of `scope`, and switching off those that fire. ValueError without maxima.
    """
    if not 1 <= n <= MAX_VERIFIED:
        raise ValueError(f"n is the number of latents to verify, 1 to {MAX_VERIFIED}, got {n}")
    if steerer.max_activation is None:
        raise ValueError("candidates need each latent's maximum; load the SAE with its index")
    prepared = steerer.prepare(image, prompt, answer_start)
    tokens = word_tokens(steerer.vlm.tokenizer, word)
    up, off = predicted_changes(steerer, prepared, tokens, dose, scope)
    sign = -1.0 if less else 1.0
    allowed = torch.ones(len(up), dtype=torch.bool)
    if latents is not None:
        latents = list(latents)
        known = [Edit(latent, "ablate") for latent in latents]
        check_edits(known, steerer.sae, steerer.max_activation)
        allowed = torch.zeros_like(allowed).index_fill_(0, torch.tensor(latents), True)
    scores = (sign * torch.stack([up, off])).masked_fill(~allowed, -torch.inf)
    places = scores.flatten().topk(min(n, 2 * int(allowed.sum()))).indices.tolist()
    edits = [
        Edit(place, "set", dose, "max", scope)
        if place < len(up)
        else Edit(place - len(up), "ablate", scope=scope)
        for place in places
    ]
    guesses = [float(sign * scores.flatten()[place]) for place in places]
    verified = _verified(steerer, prepared, tokens, edits, guesses)
    return sorted(verified, key=lambda candidate: -sign * candidate.actual)


def predicted_changes(
    steerer: "Steerer", prepared: "Prepared", tokens: list[int], dose: float, scope: Scope
) -> tuple[Float32[Tensor, " d_sae"], Float32[Tensor, " d_sae"]]:
    """First-order change (d_sae) of the word's logit for each latent set to `dose` times its
    maximum, and for each switched off. Float32 on the CPU."""
    activations, sae = prepared.activations, steerer.sae
    leaf = prepared.kept.hidden.detach().clone().requires_grad_()
    with torch.enable_grad():
        logit = steerer.run(prepared, leaf)[0, tokens].logsumexp(0)
        (gradient,) = torch.autograd.grad(logit, leaf)
    with torch.no_grad():
        reach = activations.reach(scope)
        slope = (
            gradient.reshape(activations.x.shape).float().to(sae.W_dec.device) * reach[..., None]
        )
        slope = slope * sae.token_scale(activations.x.to(sae.W_dec))
        per_unit = slope.sum((0, 1)).to(sae.W_dec.dtype) @ sae.W_dec.T
        values, indices = activations.code
        slopes = torch.einsum("rtd,rtnd->rtn", slope.to(sae.W_dec.dtype), sae.W_dec[indices])
        off = torch.zeros(sae.cfg.d_sae, device=slopes.device, dtype=slopes.dtype)
        off.index_add_(0, indices.flatten(), -(values * slopes).flatten())
        assert steerer.max_activation is not None, "checked by candidates"
        limits = steerer.max_activation.to(per_unit)
        up = torch.where(limits > 0, dose * limits * per_unit + off, 0.0)
    return up.float().cpu(), off.float().cpu()


@torch.no_grad()
def _verified(
    steerer: "Steerer",
    prepared: "Prepared",
    tokens: list[int],
    edits: list[Edit],
    guesses: list[float],
) -> list[Candidate]:
    rows = [prepared.activations.edited((edit,)) for edit in edits]
    logits = torch.cat(
        [steerer.run(prepared, torch.cat(rows[i : i + 8])) for i in range(0, len(rows), 8)]
    )
    before = prepared.logits
    start, p = before[tokens].logsumexp(0), float(before.softmax(-1)[tokens].sum())
    names = steerer.index.names if steerer.index is not None else None
    return [
        Candidate(
            edit,
            names[edit.latent] if names else "",
            guess,
            float(row[tokens].logsumexp(0) - start),
            p,
            float(row.softmax(-1)[tokens].sum()),
        )
        for edit, guess, row in zip(edits, guesses, logits, strict=True)
    ]
