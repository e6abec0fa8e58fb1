"""The About tab: method, limits, citations, licences. Constant text, no model facts."""

import gradio as gr

from sae.ui.static_files import template


def about_tab() -> None:
    """Build the About tab inside the open Blocks context."""
    gr.HTML(
        html_template=template("about.html"),
        js_on_load=None,
        apply_default_css=False,
        elem_id="about",
    )
