"""The Latents tab's search by meaning: text or a picture in, concepts in order of fit out.

Knows: what a browser may ask and how to call the index. Does not know: Gradio, how fit is computed.
"""

import logging
from typing import TYPE_CHECKING

from sae.images import ImageError
from sae.ui.concepts_desk import Openings

if TYPE_CHECKING:
    from sae.backbones import Backbone
    from sae.concepts.concept import Hit
    from sae.concepts.index import ConceptIndex

MAX_FOUND = 60
MAX_TEXT = 200
log = logging.getLogger(__name__)


class Finder:
    """Answers searches; immutable, shared by all visitors."""

    def __init__(self, index: "ConceptIndex", backbone: "Backbone", openings: Openings) -> None:
        self.index, self.backbone, self.openings = index, backbone, openings
        self.by_text = self.by_picture = index.searcher.has_text
        index.searcher.prepare()

    def answer(self, wanted: object) -> dict[str, object]:
        """`{found: [[latent, score], …]}` for `{text}` or `{picture, patches}`, or `{problem}`."""
        fields = wanted if isinstance(wanted, dict) else {}
        try:
            found = self._picture(fields) if "picture" in fields else self._text(fields)
        except (ImageError, ValueError, OSError) as error:
            return {"problem": str(error)}
        except Exception:
            log.exception("a search failed")
            return {"problem": "This search could not be answered. Try another one."}
        return {"found": [[hit.latent, round(hit.score, 4)] for hit in found]}

    def rows(self, text: str, k: int) -> list[dict[str, object]]:
        """The k best concepts for a text, by name and meaning, as the endpoint gives them."""
        hits = self.index.searcher.search(text, max(1, min(k, 100)), backbone=self.backbone)
        return [
            {"latent": h.latent, "name": h.name, "score": round(h.score, 4), "by": h.by}
            for h in hits
        ]

    def _text(self, fields: dict) -> "list[Hit]":
        text = str(fields.get("text") or "")[:MAX_TEXT]
        return self.index.searcher.by_meaning(text, MAX_FOUND, backbone=self.backbone)

    def _picture(self, fields: dict) -> "list[Hit]":
        image, patches = self.openings.picture(fields["picture"]), fields.get("patches")
        if patches is not None:
            n = self.openings.limits.n_patches
            known = isinstance(patches, list) and len(patches) <= n
            if not known or not all(isinstance(p, int) and 0 <= p < n for p in patches):
                raise ValueError("These patches are not in the picture. Choose some and try again.")
        return self.index.searcher.like_image(
            image, MAX_FOUND, patches=patches, backbone=self.backbone
        )
