"""The Latents tab: the map of all concepts, its table, and the search.

Knows: Gradio and who answers. Does not know: how figures are packed or how a search is ranked.
"""

import gradio as gr

from sae.ui.catalogue import Catalogue
from sae.ui.latents_desk import Finder
from sae.ui.overview import Overview
from sae.ui.static_files import script, template
from sae.views.code import to_base64
from sae.views.colours import lookup_table


def latents_tab(catalogue: Catalogue, finder: Finder | None) -> None:
    """Build the Latents tab inside the open Blocks context; without an index it says how to get one."""
    overview = Overview(catalogue) if catalogue.index is not None else None

    def latents(_nothing: object = None) -> dict[str, object]:
        return overview.packed if overview is not None else {}

    def icons(numbers: list[int]) -> dict[str, str]:
        return catalogue.icons(numbers)

    def find(wanted: dict[str, object]) -> dict[str, object]:
        return finder.answer(wanted) if finder is not None else {"found": []}

    gr.HTML(
        None,
        html_template=template("latents.html"),
        js_on_load=script("latents.js"),
        apply_default_css=False,
        elem_id="latents",
        server_functions=[latents, icons, find],
        setup={
            "colours": to_base64(lookup_table()),
            "has_index": overview is not None,
            "by_meaning": finder is not None and finder.by_text,
            "by_picture": finder is not None and finder.by_picture,
        },
    )
    if finder is not None:
        search_endpoint(finder)


def search_endpoint(finder: Finder) -> None:
    """Add `/search` to the open Blocks context; its components are never on screen."""

    def search(text: str, k: float = 10) -> list[dict[str, object]]:
        """Concepts that a text is about, best first: rows of latent, name, score and by.

        `by` is "name" or "meaning"; k is at most 100.
        """
        try:
            return finder.rows(text, int(k))
        except (OSError, ValueError, OverflowError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.Button(visible=False).click(
        search,
        [
            gr.Textbox(label="text", visible=False),
            gr.Number(10, label="k", visible=False, minimum=1, maximum=100),
        ],
        gr.JSON(label="concepts", visible=False),
        api_name="search",
        concurrency_limit=4,
    )
