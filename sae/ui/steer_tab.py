"""The Steer tab: a rack of concepts, texts side by side, and the endpoint `/steer`.

Knows: Gradio's events and components. Does not know: how an answer is computed.
"""

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from sae.storage import read_json
from sae.ui.endpoint import SentFile
from sae.ui.examples import EXAMPLES, picture_of
from sae.ui.static_files import script, template
from sae.ui.steer_desk import SteerDesk
from sae.views.pictures import data_uri, thumbnail

QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def steer_tab(desk: SteerDesk, presets: Path | None) -> None:
    """Build the Steer tab inside the open Blocks context."""

    def ask(asked: dict[str, object]) -> dict[str, object]:
        return desk.answer(asked)

    panel = gr.HTML(
        None,
        html_template=template("steer.html"),
        js_on_load=script("steer.js", "write", "halt"),
        apply_default_css=False,
        elem_id="steer",
        server_functions=[ask],
        setup={
            "has_index": desk.catalogue.index is not None,
            "d_sae": desk.catalogue.d_sae,
            "has_summary": desk.openings.analyst.has_summary,
            "presets": read_json(presets)["presets"] if presets and presets.is_file() else [],
            "examples": [
                {
                    "name": example.name,
                    "title": example.title,
                    "thumbnail": data_uri(thumbnail(picture_of(example.scene)), "webp"),
                }
                for example in EXAMPLES
            ],
        },
    )

    def write(event: gr.EventData, request: gr.Request) -> Iterator[dict[str, object]]:
        yield from desk.captions(event._data, request.session_hash or "")

    def halt(request: gr.Request) -> None:
        desk.stop(request.session_hash or "")

    panel.write(
        write,
        outputs=[panel],
        trigger_mode="always_last",
        concurrency_id="steer",
        concurrency_limit=1,
        **QUIET,
    )
    panel.halt(halt, queue=False, **QUIET)
    steer_endpoint(desk)


def steer_endpoint(desk: SteerDesk) -> None:
    """Add `/steer` to the open Blocks context; its components are never on screen."""

    def steer(image: str | None, prompt: str, edits: object) -> dict[str, object]:
        """What the model says of a picture, as it is and with edited latents.

        edits: a JSON list such as [{"latent": 12, "mode": "set", "strength": 2.0}]; strengths are
        multiples of each latent's own maximum. Returns original, steered, relative_change.
        """
        from sae.images import open_image
        from sae.steering.edits import SteerRequest

        try:
            if image is None:
                raise ValueError("send a picture: predict(handle_file(path), …, api_name='/steer')")
            request = SteerRequest.from_json({"prompt": prompt, "edits": edits or []})
            found = desk.steerer.generate(
                open_image(image), request.prompt, request.edits, max_new_tokens=64
            )
        except (OSError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        return {name: value for name, value in found.to_json().items() if "control" not in name}

    gr.Button(visible=False).click(
        steer,
        [
            SentFile(label="image", type="filepath", visible=False),
            gr.Textbox(label="prompt", visible=False),
            gr.JSON(label="edits", visible=False),
        ],
        gr.JSON(label="captions", visible=False),
        api_name="steer",
        concurrency_id="steer",
        concurrency_limit=1,
    )
