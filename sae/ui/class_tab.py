"""The Steer tab of a classifier: a rack of concepts, a bar a class, and the endpoint `/steer`.

Knows: Gradio's components. Does not know: how an answer is computed.
"""

import gradio as gr

from sae.steering.classes import ClassSteerer
from sae.steering.edits import SteerRequest
from sae.ui.class_desk import ClassDesk
from sae.ui.page import Page, sent_file, sent_path

ANY = "describe the image"
"""A request has a prompt; a classifier is asked nothing."""


def build(page: Page, steerer: ClassSteerer) -> None:
    """Build the tab inside the open Blocks context."""
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
