"""The Steer and Compare tabs of a classifier, and the endpoints `/steer` and `/compare`.

Knows: Gradio's components. Does not know: how an answer is computed.
"""

import gradio as gr

from sae.adaptation.class_compare import ClassComparison
from sae.steering.classes import ClassSteerer
from sae.steering.edits import SteerRequest
from sae.ui.class_compare_desk import ClassCompareDesk
from sae.ui.class_desk import ClassDesk
from sae.ui.page import Page, sent_file, sent_path

ANY = "describe the image"
"""A request has a prompt; a classifier is asked nothing."""


def build_steer(page: Page, steerer: ClassSteerer) -> None:
    """Build the tab inside the open Blocks context: a rack of concepts, a bar a class."""
    desk = ClassDesk(steerer, page.concepts, page.catalogue)
    desk.offer(page.dispatch)
    page.component(
        "steer",
        "steer_classes.js",
        layout="steer_classes.html",
        experiments=[],
        examples=page.concepts.gallery.strip(),
    )

    def steer(image: str | None, edits: object) -> dict[str, object]:
        """The likeliest classes of a picture, as it is and with edited latents.

        edits: a JSON list such as [{"latent": 12, "mode": "set", "strength": 2.0}]; strengths are
        multiples of each latent's own maximum. Returns classes, original, steered, relative_change.
        """
        picture = page.concepts.uploaded(sent_path(image, "steer"))
        request = SteerRequest.from_json({"prompt": ANY, "edits": edits or []})
        return steerer.classify(picture, request.edits).to_json()

    page.endpoint(steer, [sent_file(), gr.JSON(label="edits", visible=False)], "classes")


def build_compare(page: Page, comparison: ClassComparison) -> None:
    """Build the tab inside the open Blocks context: one class against another."""
    ClassCompareDesk(comparison, page.concepts, page.catalogue).offer(page.dispatch)
    page.component(
        "compare",
        "compare_classes.js",
        layout="compare_classes.html",
        examples=page.concepts.gallery.strip(),
        n_classes=len(comparison.backbone.classes),
    )

    def compare(image: str | None, first: str, second: str) -> dict[str, object]:
        """One class against another on a picture: predictions, and each concept's share in the margin.

        Empty classes mean the two likeliest. start + contributions + residual = margin.
        """
        picture = page.concepts.uploaded(sent_path(image, "compare"))
        classes = (first, second) if first.strip() and second.strip() else None
        return comparison.explain(picture, classes).to_json()

    page.endpoint(
        compare,
        [
            sent_file(),
            gr.Textbox(label="first class", visible=False),
            gr.Textbox(label="second class", visible=False),
        ],
        "comparison",
    )
