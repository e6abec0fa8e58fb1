"""Ways of putting a kind in and of taking it out: DiffMean at its best, and what latents can do against it.

Knows one picture's activations, a kind's evidence and a few numbers that are tuned; decodes no text. Each
design is a function that gives a Change of `training.steering.protocol`; none is told where an object lies.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.steering import Edit, Scope
from training.steering.evidence import Evidence, above, ranked
from training.steering.protocol import Change, Pair, maxima_of

Scores = Callable[[Pair], Float[Tensor, " tokens"]]
"""How much of the kind each token of a pair's picture has."""


def by_direction(directions: Float[Tensor, "kinds d_in"], mean: Float[Tensor, " d_in"]) -> Scores:
    """The projection of each token, less the mean token, on the kind's direction."""
    unit = F.normalize(directions, dim=-1)
    return lambda pair: (pair.prepared.activations.x[0] - mean) @ unit[pair.kind]


def by_latents(evidence: Evidence, n: int) -> Scores:
    """The kind's `n` best latents, each in shares of its maximum, added up."""

    def scores(pair: Pair) -> Tensor:
        latents = evidence.kinds.latents[pair.kind][:n]
        most = maxima_of(pair.prepared.steerer)[latents].clamp(min=1e-6)
        return (pair.prepared.activations.latents(latents)[0] / most).sum(-1)

    return scores


def decoder_directions(
    evidence: Evidence, rows: Float[Tensor, "d_sae d_in"], n: int
) -> Float[Tensor, "kinds d_in"]:
    """(kinds, d): the decoder rows of the `n` latents that pictures with the kind have most beyond others,
    weighted by how much: DiffMean as far as these latents tell it. With n = 1 the row of the kind's best
    latent by AUROC."""
    if n == 1:
        return rows[[latents[0] for latents in evidence.kinds.latents]]
    best = [torch.from_numpy(ranked(row, n)) for row in evidence.code_difference]
    pairs = zip(evidence.code_difference, best, strict=True)
    return torch.stack([row[b] @ rows[b] for row, b in pairs])


def subtract(
    scores: Scores,
    share: float,
    directions: Float[Tensor, "kinds d_in"],
    mean: Float[Tensor, " d_in"],
    dose: float,
) -> Change:
    """x - dose · ((x - mean) · u) u on the tokens whose score exceeds `share` of the picture's largest."""
    unit = F.normalize(directions, dim=-1)

    def change(pair: Pair) -> Tensor:
        activations, u = pair.prepared.activations, unit[pair.kind]
        size = ((activations.x[0] - mean) @ u) * above(scores(pair), share)
        return activations.plus(-dose * size[None, :, None] * u)

    return change


def fill(scores: Scores, share: float) -> Change:
    """The tokens whose score exceeds `share` of the picture's largest become the mean of its others."""

    def change(pair: Pair) -> Tensor:
        activations = pair.prepared.activations
        here, x = above(scores(pair), share), activations.x[0]
        rest = ~here & activations.reach(Scope("patches"))[0]
        if not rest.any():
            return activations.hidden
        return activations.plus((here[:, None] * (x[rest].mean(0) - x))[None])

    return change


def lower(evidence: Evidence, n: int, dose: float, share: float) -> Change:
    """The kind's `n` best latents, each where it exceeds `share` of its largest in the picture: to -dose
    times its maximum."""

    def change(pair: Pair) -> Tensor:
        activations, edits = pair.prepared.activations, []
        maxima = maxima_of(pair.prepared.steerer)
        latents = evidence.kinds.latents[pair.kind][:n]
        for latent, most in zip(latents, activations.latents(latents)[0].amax(0), strict=True):
            limit = share * float(most) / max(float(maxima[latent]), 1e-6)
            edits.append(Edit(latent, "set", -dose, scope=Scope(above=limit)))
        return activations.edited(edits)

    return change


def paint(
    directions: Float[Tensor, "kinds d_in"], mean: Float[Tensor, " d_in"], dose: float, where: str
) -> Change:
    """`dose` times the kind's direction on the pair's region: added ("region"), or to the mean token in its
    place ("replace")."""

    def change(pair: Pair) -> Tensor:
        activations = pair.prepared.activations
        here = activations.reach(Scope("region", patches=pair.region))[..., None]
        start = mean - activations.x if where == "replace" else 0.0
        return activations.plus(here * (start + dose * directions[pair.kind]))

    return change


def write_code(evidence: Evidence, n: int, dose: float) -> Change:
    """On the pair's region all latents off but the `n` that the kind's tokens have most, at `dose` times what
    these have."""

    def change(pair: Pair) -> Tensor:
        scope, row = Scope("region", patches=pair.region), evidence.profile[pair.kind]
        edits = [Edit(int(j), "set", dose * float(row[j]), "raw", scope) for j in ranked(row, n)]
        edits.append(Edit(edits[0].latent, "only", scope=scope))
        return pair.prepared.activations.edited(edits)

    return change
