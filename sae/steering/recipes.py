"""Edits that work: how to put a concept into a picture and how to take it out.

Knows edits only. The doses are those that `training/bench/steering.py` measures on the bundled models.
"""

from collections.abc import Sequence

from sae.steering.edits import Edit, Scope

INSERT_DOSE = 4.0
SUPPRESS_DOSE = -1.0


def insert(
    latent: int, patches: Sequence[int] | None = None, dose: float = INSERT_DOSE
) -> tuple[Edit, ...]:
    """Put a concept into a region of the picture: there the latent alone, at `dose` times its
    maximum, instead of what was there. Without `patches`, on every token, and all else stays."""
    if patches is None:
        return (Edit(latent, "set", dose),)
    region = Scope("region", patches=tuple(patches))
    return (Edit(latent, "set", dose, scope=region), Edit(latent, "only", scope=region))


def suppress(latent: int, dose: float = SUPPRESS_DOSE) -> tuple[Edit, ...]:
    """Take a concept out: the latent to `dose` times its maximum on the tokens on which it fires.
    To switch it off alone (dose 0) is often too little: other latents tell the same."""
    return (Edit(latent, "set", dose, scope=Scope(above=0.0)),)
