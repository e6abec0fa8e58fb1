"""Images to activations: vision towers of transformers, open_clip and timm.

The only package that knows module paths of those libraries; it knows nothing of SAEs.
"""

from sae.backbones.base import Backbone

__all__ = ["Backbone"]
