"""Which latents would make a classifier say a class? What all would do, then the truth for few.

Knows a ClassSteerer. Where pooling and classifier are linear in the SAE's layer, what every latent would do
is computed for all of them, exact but for rounding; elsewhere the gradient chooses which ones are run.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sae.steering.activations import check_edits
from sae.steering.candidates import MAX_VERIFIED, Candidate, first_order, likeliest_edits
from sae.steering.classes import ClassSteerer, Picture, SeenClasses
from sae.steering.edits import EVERYWHERE, Edit, Scope

_ROWS = 512
"""Latents whose classes are computed at once."""


@torch.no_grad()
def class_candidates(
    steerer: ClassSteerer,
    image: Picture,
    word: str,
    *,
    dose: float = 1.0,
    scope: Scope = EVERYWHERE,
    less: bool = False,
    n: int = 8,
    latents: Iterable[int] | None = None,
) -> list[Candidate]:
    """The `n` latents that raise the probability of a class most (with `less`: lower it), run and
    sorted by what they truly do; `predicted` and `actual` are changes of its logarithm.

    Considers setting each latent (or each of `latents`) to `dose` times its own maximum on the tokens of
    `scope`, and switching off those that fire. ValueError for an unknown class and without maxima.
    """
    if not 1 <= n <= MAX_VERIFIED:
        raise ValueError(f"n is the number of latents to verify, 1 to {MAX_VERIFIED}, got {n}")
    if steerer.max_activation is None:
        raise ValueError("candidates need each latent's maximum; load the SAE with its index")
    numbers = steerer.numbers(word)
    if latents is not None:
        latents = list(latents)
        check_edits([Edit(one, "ablate") for one in latents], steerer.sae, steerer.max_activation)
    seen = steerer.prepare(image)
    foretold = _foretold(steerer, seen, numbers, dose, scope)
    sign = -1.0 if less else 1.0
    edits, places = likeliest_edits(sign * foretold, n, dose, scope, latents)
    changes = torch.cat([seen.activations.change((edit,)) for edit in edits])
    start = log_share(seen.logits, numbers)
    names = None if steerer.index is None else steerer.index.names
    found = [
        Candidate(
            edit,
            names[edit.latent] if names else "",
            guess,
            float(after - start),
            float(start.exp()),
            float(after.exp()),
        )
        for edit, guess, after in zip(
            edits,
            foretold.flatten()[places].tolist(),
            log_share(steerer.logits(seen, changes), numbers),
            strict=True,
        )
    ]
    return sorted(found, key=lambda one: -sign * one.actual)


def log_share(
    logits: Float[Tensor, "*rows classes"], numbers: list[int]
) -> Float[Tensor, " *rows"]:
    """Logarithm of what the classes `numbers` have of the probability together."""
    return logits.log_softmax(-1)[..., numbers].logsumexp(-1)


def _foretold(
    steerer: ClassSteerer, seen: SeenClasses, numbers: list[int], dose: float, scope: Scope
) -> Float32[Tensor, "2 d_sae"]:
    """Change of the log-probability for each latent set to `dose` times its maximum, and for each switched
    off: exact where the effects are known, else to first order."""
    assert steerer.max_activation is not None, "checked by class_candidates"
    if steerer.effects is None:
        leaf = seen.activations.hidden.detach().clone().requires_grad_()
        with torch.enable_grad():
            share = log_share(steerer.run(seen, leaf)[0], numbers)
            (gradient,) = torch.autograd.grad(share, leaf)
        return torch.stack(
            first_order(seen.activations, gradient, steerer.max_activation, dose, scope)
        )
    start = log_share(seen.logits, numbers)
    rows = []
    for amounts in _amounts(steerer, seen, dose, scope):
        parts = zip(amounts.split(_ROWS), steerer.effects.split(_ROWS), strict=True)
        each = [log_share(seen.logits + z[:, None] * effect, numbers) for z, effect in parts]
        rows.append(torch.cat(each) - start)
    return torch.stack(rows)


def _amounts(
    steerer: ClassSteerer, seen: SeenClasses, dose: float, scope: Scope
) -> tuple[Float32[Tensor, " d_sae"], Float32[Tensor, " d_sae"]]:
    """By how much each latent's mean over tokens changes, set to `dose` times its maximum and off."""
    activations, sae = seen.activations, steerer.sae
    assert steerer.max_activation is not None, "checked by class_candidates"
    reach = activations.reach(scope)[0].to(sae.W_dec)
    weight = (reach[:, None] * sae.token_scale(activations.x[0].to(sae.W_dec)))[:, 0] / len(reach)
    values, indices = (part[0] for part in activations.code)
    off = torch.zeros(sae.cfg.d_sae, device=weight.device, dtype=weight.dtype)
    off.index_add_(0, indices.flatten(), -(values * weight[:, None]).flatten())
    limits = steerer.max_activation.to(off)
    up = torch.where(limits > 0, dose * limits * weight.sum() + off, 0.0)
    return up.float().cpu(), off.float().cpu()
