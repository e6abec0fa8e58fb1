"""The designs that compete in putting a kind in and in taking it out, each with the settings that are tuned.

Knows names and grids (at most `contest.BUDGET` settings a design, for DiffMean as for latents); what a design
does is in `training.steering.designs`.
"""

from itertools import product

from jaxtyping import Float
from torch import Tensor

from training.steering.contest import Settings
from training.steering.designs import (
    by_direction,
    by_latents,
    decoder_directions,
    fill,
    lower,
    paint,
    subtract,
    write_code,
)
from training.steering.evidence import Evidence
from training.steering.protocol import Change, KindLatents, add_direction, set_latents

DIFF_MEAN = "DiffMean"


def taking_out(evidence: Evidence, rows: Float[Tensor, "d_sae d_in"]) -> dict[str, Settings]:
    """Designs that take a kind out, DiffMean's first."""
    kinds, mean = evidence.kinds, evidence.kinds.mean
    whole = {"whole pictures": kinds.diff_mean, "its tokens": evidence.refined}
    designs: dict[str, Settings] = {
        "DiffMean on all tokens": {
            f"-{dose:g} × the difference": add_direction(kinds.diff_mean, mean, -dose, "all")
            for dose in (1.5, 2, 2.5, 3, 4, 5)
        },
        "DiffMean on its own tokens": {
            f"of {name}, above {share:g}, -{dose:g} s u": subtract(
                by_direction(whole[name], mean), share, whole[name], mean, dose
            )
            for name, share, dose in (
                *product(("whole pictures",), (0.5, 0.6), (2, 3, 4)),
                ("whole pictures", 0.4, 3),
                ("its tokens", 0.6, 3),
            )
        },
        "DiffMean's tokens filled": {
            f"of {name}, above {share:g}": fill(by_direction(d, mean), share)
            for (name, d), share in product(whole.items(), (0.3, 0.4, 0.5, 0.6))
        },
        "one latent": {
            f"to -{dose:g} × max, above {share:g}": lower(evidence, 1, dose, share)
            for share, dose in product((0, 0.2), (0.75, 1, 1.5, 2))
        },
        "several latents": {
            f"{n} to -{dose:g} × max, above 0": lower(evidence, n, dose, 0)
            for n, dose in product((3, 4, 6, 8), (0.25, 0.5))
        },
    }
    scaled: dict[str, Change] = {}
    for n in (1, 4, 16, 64):
        direction = decoder_directions(evidence, rows, n)
        tokens = {
            "its own tokens above 0.5": (by_direction(direction, mean), 0.5),
            "the latents' tokens above 0.3": (by_latents(evidence, 3), 0.3),
        }
        scaled |= {
            f"{n} latents, {where}, -3 s u": subtract(*chosen, direction, mean, 3.0)
            for where, chosen in tokens.items()
        }
    designs["the latents' direction, scaled like DiffMean"] = scaled
    designs["the latents' tokens filled"] = {
        f"tokens by {m}, above {share:g}": fill(by_latents(evidence, m), share)
        for m, share in product((2, 4), (0.1, 0.2, 0.35, 0.5))
    }
    return designs


def putting_in(
    evidence: Evidence, steered: KindLatents, rows: Float[Tensor, "d_sae d_in"]
) -> dict[str, Settings]:
    """Designs that put a kind into a region, DiffMean's first; `steered` has each kind's latents with the one
    first that steers best."""
    kinds, mean = evidence.kinds, evidence.kinds.mean
    doses = {"all": (8,), "region": (64, 128, 192), "replace": (32, 64)}
    told = {"region": (1.5, 2, 3), "replace": (1, 1.5, 2, 2.5, 3)}
    designs: dict[str, Settings] = {
        "DiffMean of whole pictures": {
            f"{where}, {dose:+g} × the difference": add_direction(
                kinds.diff_mean, mean, dose, where
            )
            for where, some in doses.items()
            for dose in some
        }
    }
    own = {"region": (4, 6, 8), "replace": (3, 4, 5, 6, 8)}
    for name, direction, grid in (
        ("DiffMean of its own tokens", evidence.refined, own),
        ("DiffMean told the objects' masks", kinds.diff_mean_masks, told),
    ):
        designs[name] = {
            f"{where}, {dose:+g} × the difference": paint(direction, mean, dose, where)
            for where, some in grid.items()
            for dose in some
        }
    designs["one latent in its place"] = {
        f"{dose:g} × max": set_latents(steered, dose, "replace") for dose in (2.5, 3, 3.5, 4, 5, 6)
    }
    designs["several latents in its place"] = {
        f"{n} at {dose:g} × max": set_latents(steered, dose, "replace", n=n)
        for n, dose in product((2, 3), (1.5, 2, 2.5))
    }
    designs["the kind's code in its place"] = {
        f"{n} latents at {dose:g} × theirs": write_code(evidence, n, dose)
        for n, dose in product((4, 8, 16, 64), (1.5, 2.5))
    }
    code = {n: decoder_directions(evidence, rows, n) for n in (8, 64)}
    designs["the latents' direction like DiffMean"] = {
        f"{n} latents, {where}, {dose:+g} ×": paint(direction, mean, dose, where)
        for (n, direction), (where, some) in product(
            code.items(), {"region": (2,), "replace": (1.5, 2, 2.5)}.items()
        )
        for dose in some
    }
    return designs
