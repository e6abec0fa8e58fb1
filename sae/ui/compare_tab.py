"""The Compare tab: two heads on one picture and over a whole task, and the endpoint `/compare`.

Knows: Gradio. Does not know: how an answer is computed.
"""

import gradio as gr

from sae.ui.compare_desk import CompareDesk
from sae.ui.endpoint import SentFile
from sae.ui.static_files import script, template
from sae.views.code import to_base64
from sae.views.colours import lookup_table


def compare_tab(desk: CompareDesk) -> None:
    """Build the Compare tab inside the open Blocks context."""

    def ask(asked: dict[str, object]) -> dict[str, object]:
        return desk.answer(asked)

    gr.HTML(
        None,
        html_template=template("compare.html"),
        js_on_load=script("compare.js"),
        apply_default_css=False,
        elem_id="compare",
        server_functions=[ask],
        setup={"tasks": desk.tasks, "colours": to_base64(lookup_table())},
    )
    compare_endpoint(desk)


def compare_endpoint(desk: CompareDesk) -> None:
    """Add `/compare` to the open Blocks context; its components are never on screen."""

    def compare(image: str | None, task: str, first: str, second: str) -> dict[str, object]:
        """Two heads of a task on a picture: predictions, and each concept's share in the margin.

        Of each head, contributions + residual = margin.
        """
        from sae.images import open_image

        try:
            if image is None:
                raise ValueError(
                    "send a picture: predict(handle_file(path), …, api_name='/compare')"
                )
            found = desk.comparison.explain(open_image(image), task, (first, second))
        except (OSError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        return found.to_json()

    gr.Button(visible=False).click(
        compare,
        [
            SentFile(label="image", type="filepath", visible=False),
            gr.Textbox(label="task", visible=False),
            gr.Textbox(label="first head", visible=False),
            gr.Textbox(label="second head", visible=False),
        ],
        gr.JSON(label="comparison", visible=False),
        api_name="compare",
        concurrency_id="model",
        concurrency_limit=1,
    )
