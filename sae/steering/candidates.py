"""Which latents would make the model say a word? A first-order guess for all, then the truth for few.

Knows gradients and the SAE; the guess for a latent s set to the activation a on every token in
reach is   sum_t (a - z_t) * (d logit / d h_t) . W_dec[s]
and costs one backward pass for all latents together. The best are then run and compared.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sae.steering.activations import Activations, check_edits
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
    """Change of the word's logit, by the gradient; of a class, of its log-probability."""
    actual: float
    """The same when run."""
    before: float
    """Probability that the word comes next, or of the class, as it is."""
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
    if latents is not None:
        latents = list(latents)
        known = [Edit(latent, "ablate") for latent in latents]
        check_edits(known, steerer.sae, steerer.max_activation)
    changes = torch.stack([up, off])
    edits, places = likeliest_edits(sign * changes, n, dose, scope, latents)
    guesses = changes.flatten()[places].tolist()
    verified = _verified(steerer, prepared, tokens, edits, guesses)
    return sorted(verified, key=lambda candidate: -sign * candidate.actual)


def predicted_changes(
    steerer: "Steerer", prepared: "Prepared", tokens: list[int], dose: float, scope: Scope
) -> tuple[Float32[Tensor, " d_sae"], Float32[Tensor, " d_sae"]]:
    """First-order change (d_sae) of the word's logit for each latent set to `dose` times its
    maximum, and for each switched off. Float32 on the CPU."""
    leaf = prepared.kept.hidden.detach().clone().requires_grad_()
    with torch.enable_grad():
        logit = steerer.run(prepared, leaf)[0, tokens].logsumexp(0)
        (gradient,) = torch.autograd.grad(logit, leaf)
    assert steerer.max_activation is not None, "checked by candidates"
    return first_order(prepared.activations, gradient, steerer.max_activation, dose, scope)


@torch.no_grad()
def first_order(
    activations: Activations,
    gradient: Float[Tensor, "*rows tokens d"],
    max_activation: Float[Tensor, " d_sae"],
    dose: float,
    scope: Scope,
) -> tuple[Float32[Tensor, " d_sae"], Float32[Tensor, " d_sae"]]:
    """`predicted_changes` of anything whose `gradient` in the activations is given."""
    sae, reach = activations.sae, activations.reach(scope)
    slope = gradient.reshape(activations.x.shape).float().to(sae.W_dec.device) * reach[..., None]
    slope = slope * sae.token_scale(activations.x.to(sae.W_dec))
    per_unit = slope.sum((0, 1)).to(sae.W_dec.dtype) @ sae.W_dec.T
    values, indices = activations.code
    slopes = torch.einsum("rtd,rtnd->rtn", slope.to(sae.W_dec.dtype), sae.W_dec[indices])
    off = torch.zeros(sae.cfg.d_sae, device=slopes.device, dtype=slopes.dtype)
    off.index_add_(0, indices.flatten(), -(values * slopes).flatten())
    limits = max_activation.to(per_unit)
    up = torch.where(limits > 0, dose * limits * per_unit + off, 0.0)
    return up.float().cpu(), off.float().cpu()


def likeliest_edits(
    scores: Float32[Tensor, "2 d_sae"],
    n: int,
    dose: float,
    scope: Scope,
    allowed: Iterable[int] | None,
) -> tuple[list[Edit], list[int]]:
    """The `n` edits of the highest scores (turned up, switched off), of the latents `allowed`, and their
    places in `scores` as one row. At dose 0 the two are one and the same, and only the second is taken."""
    d_sae = scores.shape[1]
    kept = torch.ones(d_sae, dtype=torch.bool)
    if allowed is not None:
        kept = torch.zeros_like(kept).index_fill_(0, torch.tensor(list(allowed)), True)
    scores = scores.masked_fill(~kept, -torch.inf)
    if dose == 0:
        scores[0] = -torch.inf
    known = int((scores > -torch.inf).sum())
    places = scores.flatten().topk(min(n, known)).indices.tolist()
    edits = [
        Edit(place, "set", dose, "max", scope)
        if place < d_sae
        else Edit(place - d_sae, "ablate", scope=scope)
        for place in places
    ]
    return edits, places


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
