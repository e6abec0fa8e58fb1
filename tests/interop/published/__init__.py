"""Small SAEs in every published format, each with its library's own encode and decode.

The functions are written from the formats' descriptions, apart from `sae.interop`: what a reader
makes of the files must give the same numbers.
"""

from collections.abc import Callable
from pathlib import Path

from tests.interop.published.dictionary_family import dl, sae_for_vlm
from tests.interop.published.overcomplete_family import of_class, overcomplete, pickled, visaebench
from tests.interop.published.parts import D, N, Published, as_json, topk
from tests.interop.published.patchsae_family import fastsae, patchsae, prisma
from tests.interop.published.saelens_family import saelens, signed, sparsify
from tests.interop.published.saev_family import clip_topk, clipscope, msae, saev

__all__ = ["PUBLISHED", "D", "N", "Published", "as_json", "dl", "fastsae", "prisma", "topk"]

_DL = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "unset")
_DL += ("MatroyshkaBatchTopKSAE", "JumpReluAutoEncoder", "GatedAutoEncoder")
_SAELENS = ("standard", "outside", "layer_norm", "constant_norm", "topk", "rescaled", "abstopk")
_SAELENS += ("jumprelu", "gated", "log_threshold", "batchtopk", "matryoshka_batchtopk", "scaled")
_SAELENS += ("whitened", "outside whitened")
_SAEV = ("Relu", "TopK", "BatchTopK", "old", "schema 1", "schema 1 later", "told", "by path")
PUBLISHED: dict[str, tuple[str, Callable[[Path], Published]]] = {
    "patchsae": ("patchsae", patchsae),
    "patchsae legacy": ("patchsae", lambda f: patchsae(f, "legacy.pt")),
    "patchsae pkl.gz": ("patchsae", lambda f: patchsae(f, "sae.pkl.gz")),
    "fastsae": ("fastsae", fastsae),
    **{f"dictionary_learning {k}": ("dictionary_learning", dl(k)) for k in _DL},
    "sae_for_vlm": ("sae_for_vlm", sae_for_vlm),
    **{f"prisma {k}": ("prisma", prisma(k)) for k in ("relu", "plain", "topk", "gated", "pickle")},
    **{f"saelens {k}": ("saelens", saelens(k)) for k in _SAELENS},
    **{f"saev {k}": ("saev", saev(k)) for k in _SAEV},
    **{
        f"overcomplete {k}": ("overcomplete", overcomplete(k))
        for k in ("plain", "norm", "archetypal", "identity", "untied", "jump")
    },
    **{
        f"overcomplete pickled {k}": ("overcomplete", pickled(k))
        for k in ("l2", "l1", "max_l2", "max_l1", "identity", "archetypal", "fused")
    },
    **{
        f"overcomplete {k}": ("overcomplete", of_class(k))
        for k in ("SAE", "BatchTopKSAE", "JumpSAE", "RAJumpSAE", "tied")
    },
    "sparsify": ("sparsify", sparsify),
    "sparsify signed": ("sparsify", signed),
    **{
        f"visaebench {k}": ("visaebench", visaebench(k))
        for k in ("topk", "batchtopk", "jumprelu", "overcomplete", "yaml", "norm", "missing")
    },
    "clipscope": ("clipscope", clipscope),
    **{f"msae {k}": ("msae", msae(k)) for k in ("ReLU", "TopK", "TopKabs", "TopKReLU", "tied")},
    **{f"clip_topk {k}": ("clip_topk", clip_topk(k)) for k in ("normalised", "raw", "no bias")},
}
"""Case → (format, maker)."""
