"""How much each concept of a picture adds to the margin between two classes of a backbone's own classifier.

Knows classifiers that are linear in the hooked layer (Backbone.class_readout), where shares are exact:

    logit[first] - logit[second] = start + sum of shares + error

`start` is the margin without any concept, `error` the share of what the SAE leaves unexplained. Heads and
words are `sae.adaptation.attribution`'s.
"""

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sae.adaptation.attribution import Attribution
from sae.backbones.base import Backbone
from sae.backbones.classes import ClassReadout
from sae.backbones.tokens import TokenView
from sae.model import SparseAutoencoder
from sae.sparse import SparseLatents


@torch.no_grad()
def class_shares(
    backbone: Backbone,
    sae: SparseAutoencoder,
    image: Image.Image,
    first: str,
    second: str,
    *,
    hidden: Float[Tensor, "1 tokens d"] | None = None,
) -> Attribution:
    """Shares of the concepts of `image` in logit[first] - logit[second], classes of `backbone.classes`.

    Exact in real numbers; sums are float64. `hidden`: the layer's activations of the image, if they are
    known. ValueError for an unknown class, and where the classifier is not linear in the SAE's layer.
    """
    readout, (one, other) = _readout(backbone, sae), _numbers(backbone, (first, second))
    direction = (readout.weights[one] - readout.weights[other]).double()
    offset = float(readout.bias[one].double() - readout.bias[other].double())
    view = TokenView(backbone, sae.cfg.backbone.tokens)
    if hidden is None:
        hidden = backbone.activations([image], sae.cfg.backbone.layer)
    x = view.read(hidden)[0]
    latents = sae.encode_sparse(x)
    n_tokens = hidden.shape[1]
    slopes = (sae.W_dec.double() @ direction)[latents.indices] * sae.token_scale(x)
    by_token = latents.values.double() * slopes / n_tokens
    shares = by_token.new_zeros(sae.cfg.d_sae).index_add_(
        0, latents.indices.flatten(), by_token.flatten()
    )
    origin = view.put(hidden, sae.without_latents(x)[None])[0]
    rebuilt = sae.decode(latents, like=x)
    active = latents.indices[latents.values > 0].unique()
    order = shares[active].abs().argsort(descending=True, stable=True)
    return Attribution(
        score=_along(hidden[0], direction) + offset,
        start=_along(origin, direction) + offset,
        error=float((x.double() - rebuilt.double()).sum(0) @ direction) / n_tokens,
        gap=0.0,
        exact=True,
        latents=active[order],
        shares=shares[active][order].float(),
        by_token=SparseLatents(by_token.float(), latents.indices),
    )


def _along(tokens: Float[Tensor, "tokens d"], direction: Float[Tensor, " d"]) -> float:
    return float(tokens.double().mean(0) @ direction)


def _readout(backbone: Backbone, sae: SparseAutoencoder) -> ClassReadout:
    layer = sae.cfg.backbone.layer
    readout = backbone.class_readout(layer)
    if readout is None:
        raise ValueError(
            f"the classifier of {backbone.id} is not linear in layer {layer}; use an SAE of the last "
            "map of a network that averages it, such as EfficientNet's or ResNet's"
        )
    return readout


def _numbers(backbone: Backbone, names: tuple[str, str]) -> list[int]:
    for name in names:
        if name not in backbone.classes:
            known = ", ".join(backbone.classes[:8])
            raise ValueError(f"there is no class {name!r}; {backbone.id} knows {known} …")
    return [backbone.classes.index(name) for name in names]
