"""What the Compare tab asks of a classifier and how it is answered, as plain JSON.

Knows: a ClassComparison, the catalogue and what a browser may send. Does not know: Gradio.
Explanations are kept for a while by what was asked, so that switching a concept off runs no model.
"""

from collections import OrderedDict

import numpy as np

from sae.adaptation.class_compare import ClassComparison, ClassExplanation
from sae.storage import plain_key
from sae.ui.catalogue import Catalogue
from sae.ui.compare_desk import MAX_KEPT, MAX_OFF, MAX_ROWS
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch, Json
from sae.views.code import to_base64


class ClassCompareDesk:
    """Answers the Compare tab of a classifier; shared by all visitors."""

    def __init__(
        self, comparison: ClassComparison, concepts: ConceptsDesk, catalogue: Catalogue
    ) -> None:
        self.comparison, self.concepts, self.catalogue = comparison, concepts, catalogue
        self.class_names = tuple(comparison.backbone.classes)
        self._explained: OrderedDict[str, ClassExplanation] = OrderedDict()

    def offer(self, dispatch: Dispatch) -> None:
        """Answer `class_explain`, `class_off` and `compare_words`."""
        dispatch.offer(class_explain=self._explain_json, class_off=self._off_json)
        dispatch.offer(model=False, compare_words=self._words)

    def _words(self, _fields: Json) -> Json:
        return {"words": list(self.class_names)}

    def _explanation(self, fields: Json) -> ClassExplanation:
        key = plain_key({name: fields.get(name) for name in ("picture", "classes")})
        if key in self._explained:
            self._explained.move_to_end(key)
            return self._explained[key]
        image = self.concepts.picture(fields.get("picture"))
        found = self.comparison.explain(image, self._classes(fields.get("classes")))
        self._explained[key] = found
        while len(self._explained) > MAX_KEPT:
            self._explained.popitem(last=False)
        return found

    def _classes(self, asked: object) -> tuple[str, str] | None:
        """Two classes by their numbers; None for the two likeliest."""
        if asked is None:
            return None
        n = len(self.class_names)
        numbers = asked if isinstance(asked, list) and len(asked) == 2 else []
        if not numbers or not all(type(one) is int and 0 <= one < n for one in numbers):
            raise ValueError(f"two of this classifier's {n:,} classes are compared; choose each")
        return self.class_names[numbers[0]], self.class_names[numbers[1]]

    def _explain_json(self, fields: Json) -> Json:
        found = self._explanation(fields)
        image = self.concepts.picture(fields.get("picture"))
        left, top, right, bottom = self.comparison.backbone.image_box(image.size)
        width, height = image.size
        shown = found.to_json(MAX_ROWS)
        for row in shown["concepts"]:
            row["name"] = self.catalogue.label(row["latent"])
            row["always"] = bool(self.catalogue.always_on[row["latent"]])
        latents = [row.latent for row in found.concepts[:MAX_ROWS]]
        return {
            **shown,
            "numbers": [self.class_names.index(name) for name in found.classes],
            "n_concepts": len(found.concepts),
            "grid": list(found.grid),
            "box": [left / width, top / height, right / width, bottom / height],
            "maps": _maps_of(found, latents),
            "icons": self.catalogue.icons(latents),
        }

    def _off_json(self, fields: Json) -> Json:
        off = fields.get("off")
        if (
            not isinstance(off, list)
            or len(off) > MAX_OFF
            or not all(map(self.catalogue.known, off))
        ):
            raise ValueError("no concepts were named to switch off")
        switched = self.comparison.switched_off(self._explanation(fields), off)
        predictions = [
            {"class": p.class_name, "probability": p.probability} for p in switched.predictions
        ]
        return {"scores": [switched.score], "predictions": [predictions]}


def _maps_of(found: ClassExplanation, latents: list[int]) -> Json:
    """Each latent's map in 8 bits of its largest value, which is its scale."""
    if not latents:
        return {"codes": "", "scale": []}
    maps = np.stack([found.maps(latent) for latent in latents])
    scale = maps.max(axis=(1, 2))
    codes = np.round(255 * maps / np.maximum(scale, 1e-12)[:, None, None])
    return {"codes": to_base64(codes.astype(np.uint8)), "scale": scale.tolist()}
