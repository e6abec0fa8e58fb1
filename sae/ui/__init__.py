"""The app's face: `build_demo` turns loaded models into a Gradio page.

Knows: Gradio, views, catalogue. Does not know: command lines (see `options`), training.
Importing this package is light; Gradio is imported when a page is built.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio

    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder

__all__ = ["build_demo", "launch_settings"]

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
UPLOADS_KEPT_S = 3600
"""Uploads are deleted once they are this old; the folder is looked through as often."""


def build_demo(
    backbone: "Backbone",
    sae: "SparseAutoencoder",
    index: "ConceptIndex | None" = None,
    *,
    metrics: Mapping[str, object] | None = None,
) -> "gradio.Blocks":
    """The page for one backbone, one SAE made for it and, where there is one, its index.

    `metrics` is the content of the artifact's metrics.json. Raises ValueError where the SAE or
    the index does not fit. Start the page with `demo.launch(**launch_settings())`.
    """
    import gradio as gr

    from sae.ui.about_tab import about_tab
    from sae.ui.analysis import Analyst
    from sae.ui.catalogue import Catalogue
    from sae.ui.header import Header, facts
    from sae.ui.lens import concepts_tab
    from sae.ui.openings import Openings

    analyst = Analyst(backbone, sae)
    catalogue = Catalogue(index, sae.cfg.d_sae, analyst.grid)
    openings = Openings(analyst, catalogue)
    with gr.Blocks(
        title="PatchLens", analytics_enabled=False, delete_cache=(UPLOADS_KEPT_S, UPLOADS_KEPT_S)
    ) as demo:
        Header(facts(backbone, sae, metrics), elem_id="header")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Concepts", id="concepts"):
                concepts_tab(openings, catalogue, demo)
            with gr.Tab("About", id="about"):
                about_tab()
    return demo.queue(default_concurrency_limit=4, max_size=64)


def launch_settings() -> dict[str, Any]:
    """Keyword arguments of `demo.launch` that belong to the page: theme, styles, limits.

    The styles go into the head, because Gradio rewrites the selectors of `css=`.
    """
    import gradio as gr

    from sae.ui.static_files import stylesheet
    from sae.ui.uploads import MAX_UPLOAD

    return {
        "theme": gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "Menlo", "monospace"]),
        "head": f"<style>{stylesheet()}</style>",
        "ssr_mode": False,
        "max_file_size": MAX_UPLOAD,
        "footer_links": ["api"],
    }
