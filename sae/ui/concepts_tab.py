"""The Concepts tab: one PatchLens component and the events behind it.

Knows: Gradio's events and components. Does not know: how an answer is computed.
The component's value is an answer of `Openings`; its script draws it and asks for the next one.
"""

from typing import Any

import gradio as gr

from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import Openings
from sae.ui.drawing_box import drawing_box
from sae.ui.endpoint import concepts_endpoint
from sae.ui.examples import EXAMPLES, picture_of
from sae.ui.links import KEYS
from sae.ui.static_files import script, template
from sae.ui.uploads import MAX_UPLOAD, MAX_UPLOAD_BYTES
from sae.views.code import MAX_PER_PLACE, to_base64
from sae.views.colours import lookup_table
from sae.views.pictures import data_uri, thumbnail


class PatchLens(gr.HTML):
    """The lens as a component: a constant template, a script, and plain JSON for a value."""

    def __init__(self, value: dict[str, object] | None = None, **props: Any) -> None:
        super().__init__(
            value,
            html_template=template("lens.html"),
            js_on_load=script("concepts.js", "open"),
            apply_default_css=False,
            **props,
        )


def concepts_tab(openings: Openings, catalogue: Catalogue, demo: gr.Blocks) -> None:
    """Build the Concepts tab inside the open Blocks context."""

    def icons(latents: list[int]) -> dict[str, str]:
        return catalogue.icons(latents)

    def composer(_nothing: object = None) -> dict[str, object]:
        return drawing_box()

    lens = PatchLens(
        openings.start(),
        elem_id="lens",
        server_functions=[icons, composer],
        setup=_setup(openings, catalogue),
    )

    def answer(event: gr.EventData) -> dict[str, object]:
        return openings.answer(event._data)

    def follow_link(request: gr.Request) -> Any:
        query = {key: str(text) for key, text in request.query_params.items()}
        return openings.link(query) if any(key in query for key in KEYS) else gr.skip()

    quiet = {"show_progress": "hidden", "api_visibility": "private", "outputs": [lens]}
    model = {"concurrency_id": "model", "concurrency_limit": 1}
    lens.open(answer, trigger_mode="always_last", **quiet, **model)
    demo.load(follow_link, **quiet, **model)
    concepts_endpoint(openings, catalogue)


def _setup(openings: Openings, catalogue: Catalogue) -> dict[str, object]:
    """What the script needs once: colours, example pictures, limits."""
    return {
        "colours": to_base64(lookup_table()),
        "has_index": catalogue.index is not None,
        "rank": openings.limits.rank,
        "per_place": MAX_PER_PLACE,
        "max_upload": MAX_UPLOAD.upper().replace("MB", " MB"),
        "max_upload_bytes": MAX_UPLOAD_BYTES,
        "examples": [
            {
                "name": example.name,
                "title": example.title,
                "thumbnail": data_uri(thumbnail(picture_of(example.scene)), "webp"),
            }
            for example in EXAMPLES
        ],
    }
