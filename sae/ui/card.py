"""The concept card: a dialog over every tab, and the tabs' place in the address bar.

Knows: Gradio and the catalogue. Does not know: who opens a card; the scripts talk through `bus.js`.
"""

from collections.abc import Sequence

import gradio as gr

from sae.ui.catalogue import Catalogue
from sae.ui.static_files import script, template


def card_host(catalogue: Catalogue, tabs: Sequence[str]) -> None:
    """Build the card inside the open Blocks context, outside of the tabs; `tabs` are their ids."""

    def card(latent: int) -> dict[str, object]:
        return catalogue.card(latent)

    gr.HTML(
        None,
        html_template=template("card.html"),
        js_on_load=script("card.js"),
        apply_default_css=False,
        elem_id="card",
        server_functions=[card],
        setup={"tabs": list(tabs)},
    )
