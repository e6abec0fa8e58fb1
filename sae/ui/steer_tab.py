"""The Steer tab: a rack of concepts, texts side by side, and the endpoint `/steer`.

Knows: Gradio's events and components. Does not know: how an answer is computed.
"""

from collections.abc import Iterator

import gradio as gr

from sae.steering.classes import ClassSteerer
from sae.steering.edits import SteerRequest
from sae.storage import read_sealed
from sae.ui import class_tab
from sae.ui.page import QUIET, WRITING, WRITING_CALLS, Page, sent_file, sent_path
from sae.ui.steer_desk import SteerDesk


def build(page: Page) -> None:
    """Build the tab inside the open Blocks context; of a classifier, its other form."""
    assert page.steerer is not None, "a tab of its own only then"
    if isinstance(page.steerer, ClassSteerer):
        return class_tab.build_steer(page, page.steerer)
    desk = SteerDesk(
        page.steerer, page.concepts, page.catalogue, bundled=page.sources[0] == "bundled"
    )
    desk.offer(page.dispatch)
    recorded = page.experiments
    panel = page.component(
        "steer",
        "steer.js",
        "write",
        "halt",
        # the file calls them presets, as its first version did
        experiments=read_sealed(recorded)["presets"] if recorded and recorded.is_file() else [],
        examples=page.concepts.gallery.strip(),
    )

    def write(event: gr.EventData, request: gr.Request) -> Iterator[dict[str, object]]:
        session = request.session_hash or ""
        yield from page.dispatch.stream(event._data, lambda asked: desk.captions(asked, session))

    def halt(request: gr.Request) -> None:
        desk.stop(request.session_hash or "")

    panel.write(write, outputs=[panel], trigger_mode="always_last", **QUIET, **WRITING)
    panel.halt(halt, queue=False, **QUIET)
    return _steer_endpoint(page, desk)


def _steer_endpoint(page: Page, desk: SteerDesk) -> None:
    def steer(image: str | None, prompt: str, edits: object) -> dict[str, object]:
        """What the model says of a picture, as it is and with edited latents.

        edits: a JSON list such as [{"latent": 12, "mode": "set", "strength": 2.0}]; strengths are
        multiples of each latent's own maximum. Returns original, steered, relative_change.
        """
        picture = page.concepts.uploaded(sent_path(image, "steer"))
        request = SteerRequest.from_json({"prompt": prompt, "edits": edits or []})
        captions = desk.steerer.generate(
            picture, request.prompt, request.edits, max_new_tokens=request.max_new_tokens
        )
        return {name: value for name, value in captions.to_json().items() if "control" not in name}

    page.endpoint(
        steer,
        [
            sent_file(),
            gr.Textbox(label="prompt", visible=False),
            gr.JSON(label="edits", visible=False),
        ],
        "captions",
        WRITING_CALLS,
    )
