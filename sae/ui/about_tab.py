"""The About tab: method, limits, citations, licences. Constant text, no model facts."""

import re
from collections.abc import Collection

import gradio as gr

from sae.ui.static_files import template

_OF_A_TAB = re.compile(r'<div data-tab="(\w+)">(.*?)</div>', re.DOTALL)


def about_tab(tabs: Collection[str]) -> None:
    """Build the About tab inside the open Blocks context; it tells of these `tabs` only."""
    gr.HTML(
        html_template=_OF_A_TAB.sub(
            lambda part: part[2] if part[1] in tabs else "", template("about.html")
        ),
        js_on_load=None,
        apply_default_css=False,
        elem_id="about",
    )
