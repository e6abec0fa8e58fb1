"""The Latents tab: the map of all concepts, its table, and the search; and the endpoint `/search`.

Knows: Gradio and who answers. Does not know: how figures are packed or how a search is ranked.
"""

import gradio as gr

from sae.concepts.statistics import axes
from sae.ui.latents_desk import LatentsDesk
from sae.ui.page import Page, colours


def build(page: Page) -> None:
    """Build the tab inside the open Blocks context; without an index it says how to get one."""
    desk = None
    if page.index is not None:
        desk = LatentsDesk(page.backbone, page.concepts, page.catalogue)
        desk.offer(page.dispatch)
        _search_endpoint(page, desk)
    page.component(
        "latents",
        "latents.js",
        colours=colours(),
        statistics=page.catalogue.statistics(),
        axes=axes(),
        by_meaning=desk is not None and desk.by_meaning,
        by_picture=desk is not None and desk.by_meaning,
    )


def _search_endpoint(page: Page, desk: LatentsDesk) -> None:
    def search(text: str, k: float = 10) -> list[dict[str, object]]:
        """Concepts that a text is about, best first: rows of latent, name, score and by.

        `by` is "name" or "meaning"; k is at most 100.
        """
        return desk.rows(text, k)

    page.endpoint(
        search,
        [
            gr.Textbox(label="text", visible=False),
            gr.Number(10, label="k", visible=False, minimum=1, maximum=100),
        ],
        "concepts",
    )
