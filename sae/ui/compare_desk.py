"""What the Compare tab asks and how it is answered, as plain JSON.

Knows: a Comparison, the catalogue and what a browser may send. Does not know: Gradio.
Explanations are kept for a while by what was asked, so that switching a concept off is quick.
"""

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sae.storage import plain_key
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch, Json, fields_of
from sae.views.code import to_base64
from sae.views.pictures import display_copy

if TYPE_CHECKING:
    from sae.adaptation.classifier import Classifier
    from sae.adaptation.compare import Comparison
    from sae.adaptation.explanation import Explanation

MAX_ROWS = 40
MAX_KEPT = 8
MAX_OFF = 4096
MAX_TRIED = 48
"""Pictures that are tried, at most, to find one on which two heads disagree."""
N_SAMPLES = 400
"""Pictures of a task that one can leaf through."""


class CompareDesk:
    """Answers the Compare tab; shared by all visitors."""

    def __init__(
        self, comparison: "Comparison", concepts: ConceptsDesk, catalogue: Catalogue
    ) -> None:
        self.comparison, self.concepts, self.catalogue = comparison, concepts, catalogue
        self._explained: OrderedDict[str, Explanation] = OrderedDict()
        self._sample = lru_cache(maxsize=256)(self._draw_sample)

    def offer(self, dispatch: Dispatch) -> None:
        """Answer `sample`, `differ`, `explain`, `off` and `task`."""
        dispatch.offer(model=False, sample=self._sample_json, task=self._task_json)
        dispatch.offer(differ=self._differ_json, explain=self._explain_json, off=self._off_json)

    def setup(self) -> Json:
        """What the script is told once: the tasks, the head that the results of a task compare with,
        and the two that the tab opens with: that one, and the last that knows new classes as well."""
        from sae.adaptation.files import REFERENCE

        tasks = self.comparison.tasks()
        others = [head["name"] for head in tasks[0]["heads"] if head["any_classes"]]
        return {"tasks": tasks, "reference": REFERENCE, "heads": [REFERENCE, others[-1]]}

    def _draw_sample(self, task_name: str, split: str, number: int) -> tuple[Image.Image, str]:
        """Test picture `number` of a task and its class; the same number is the same picture."""
        from sae.world.tasks import task

        chosen = task(task_name)
        names = chosen.classes(split)
        drawn = chosen.test(split, 1 + number % len(names), seed=number // len(names))
        return drawn.pictures()[-1], names[int(drawn.labels[-1])]

    def _sample_json(self, fields: Json) -> Json:
        task_name, split, number = _sample_of(fields)
        image, label = self._sample(task_name, split, number)
        shown, (width, height) = display_copy(image)
        return {
            "picture": {"src": shown, "width": width, "height": height, "alt": label},
            "label": label,
            "request": {"kind": "task", "data": [task_name, split, number]},
        }

    def _differ_json(self, fields: Json) -> Json:
        """The first picture from `number` on, of the next MAX_TRIED, on which the heads disagree.

        With `right`, of those that the second head has right.
        """
        from sae.adaptation.classifier import first_disagreement

        task_name, split, first = _sample_of(fields)
        heads = _heads_of(fields)
        numbers = [(first + step) % N_SAMPLES for step in range(MAX_TRIED)]
        images = (self._sample(task_name, split, number)[0] for number in numbers)
        pair = self._pair(task_name, heads, split)
        truths = None
        if fields.get("right") is True:
            labels = [self._sample(task_name, split, number)[1] for number in numbers]
            truths = [pair[1].number(label) for label in labels]
        place = first_disagreement(self.comparison.parts, images, pair, truths=truths)
        if place is None:
            return {"number": None}
        return {"number": numbers[place]}

    def _picture(self, request: object) -> Image.Image:
        fields = fields_of(request)
        data = fields.get("data")
        if fields.get("kind") == "task" and isinstance(data, list) and len(data) == 3:
            names = ("task", "split", "number")
            return self._sample(*_sample_of(dict(zip(names, data, strict=True))))[0]
        return self.concepts.picture(request)

    def _explanation(self, fields: Json) -> "Explanation":
        wanted = ("picture", "task", "split", "heads", "classes", "words", "against")
        key = plain_key({name: fields.get(name) for name in wanted})
        if key in self._explained:
            self._explained.move_to_end(key)
            return self._explained[key]
        image = self._picture(fields.get("picture"))
        explanation = self._explained[key] = self._explain(image, fields)
        while len(self._explained) > MAX_KEPT:
            self._explained.popitem(last=False)
        return explanation

    def _pair(
        self, task_name: str, heads: tuple[str, str], split: str
    ) -> "tuple[Classifier, Classifier]":
        first, second = (self.comparison.classifier(task_name, head, split) for head in heads)
        return first, second

    def _explain(self, image: Image.Image, fields: Json) -> "Explanation":
        heads, split = _heads_of(fields), str(fields.get("split"))
        task_name = str(fields.get("task"))
        words = fields.get("words")
        if isinstance(words, str) and words.strip():
            pair = self._pair(task_name, heads, split)
            against = fields.get("against")
            other = against if isinstance(against, str) and against.strip() else None
            return self.comparison.match(image, words, pair, against=other)
        classes = fields.get("classes")
        chosen = None
        if isinstance(classes, list) and len(classes) == 2:
            chosen = (str(classes[0]), str(classes[1]))
        return self.comparison.explain(image, task_name, heads, split=split, classes=chosen)

    def _explain_json(self, fields: Json) -> Json:
        explanation = self._explanation(fields)
        image = self._picture(fields.get("picture"))
        left, top, right, bottom = self.comparison.parts.backbone.image_box(image.size)
        shown = explanation.to_json(MAX_ROWS)
        for row in shown["concepts"]:
            row["name"] = self.catalogue.label(row["latent"])
            row["always"] = bool(self.catalogue.always_on[row["latent"]])
        latents = [row.latent for row in explanation.concepts[:MAX_ROWS]]
        width, height = image.size
        return {
            **shown,
            "n_concepts": len(explanation.concepts),
            "grid": list(explanation.view.patch_grid),
            "box": [left / width, top / height, right / width, bottom / height],
            "maps": _maps_of(explanation, latents),
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
        return {
            "scores": list(switched.scores),
            "predictions": [
                [{"class": p.class_name, "probability": p.probability} for p in side]
                for side in switched.predictions
            ],
        }

    def _task_json(self, fields: Json) -> Json:
        results = self.comparison.results(str(fields.get("task")), str(fields.get("head")))
        if results is None:
            return {"results": None}
        latents = {point[1] for point in results["base"].get("scatter", {}).get("points", [])}
        return {"results": results, "names": {str(n): self.catalogue.label(n) for n in latents}}


def _maps_of(explanation: "Explanation", latents: list[int]) -> Json:
    """Each latent's maps through both heads in 8 bits of its largest value, which is its scale."""
    if not latents:  # nothing fires, as in a picture that the SAE does not read
        return {"codes": "", "scale": []}
    maps = np.stack([explanation.maps(latent).cpu().numpy() for latent in latents])
    scale = maps.max(axis=(1, 2, 3))
    codes = np.round(255 * maps / np.maximum(scale, 1e-12)[:, None, None, None])
    return {"codes": to_base64(codes.astype(np.uint8)), "scale": scale.tolist()}


def _heads_of(fields: Json) -> tuple[str, str]:
    heads = fields.get("heads")
    if not (isinstance(heads, list) and len(heads) == 2):
        raise ValueError("two versions are compared; choose one on each side")
    return str(heads[0]), str(heads[1])


def _sample_of(fields: Json) -> tuple[str, str, int]:
    number = fields.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < N_SAMPLES:
        raise ValueError(f"pictures of a task are numbered from 0 to {N_SAMPLES - 1}")
    return str(fields.get("task")), str(fields.get("split")), number
