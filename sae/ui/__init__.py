"""The app's face: `build_demo` turns loaded models into a Gradio page.

Knows: Gradio, views, catalogue. Does not know: command lines (see `options`), training.
Importing this package is light; Gradio is imported when a page is built.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import gradio

    from sae.adaptation.compare import Comparison
    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder
    from sae.steering import Steerer

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
    steerer: "Callable[[], Steerer] | None" = None,
    presets: "Path | None" = None,
    comparison: "Comparison | None" = None,
    sources: tuple[str, str] = ("bundled", "bundled"),
) -> "gradio.Blocks":
    """The page for one backbone, one SAE made for it and, where there is one, its index.

    `metrics` is the content of the artifact's metrics.json. `steerer` loads the model that the
    Steer tab asks; without one there is no such tab. `presets` is a file of recorded experiments.
    `comparison` knows the heads of the Compare tab; without one there is no such tab. `sources`
    names what `steerer` and `sae` were loaded from, for the Python that the Steer tab shows.
    Raises ValueError where the SAE or the index does not fit. Start the page with
    `demo.launch(**launch_settings())`.
    """
    import gradio as gr

    from sae.ui.about_tab import about_tab
    from sae.ui.analysis import Analyst
    from sae.ui.card import card_host
    from sae.ui.catalogue import Catalogue
    from sae.ui.compare_desk import CompareDesk
    from sae.ui.compare_tab import compare_tab
    from sae.ui.concepts_desk import Openings
    from sae.ui.concepts_tab import concepts_tab
    from sae.ui.header import Header, facts
    from sae.ui.latents_desk import Finder
    from sae.ui.latents_tab import latents_tab
    from sae.ui.steer_desk import SteerDesk
    from sae.ui.steer_tab import steer_tab

    analyst = Analyst(backbone, sae)
    catalogue = Catalogue(index, sae.cfg.d_sae, analyst.grid)
    openings = Openings(analyst, catalogue)
    finder = Finder(index, backbone, openings) if index is not None else None
    with gr.Blocks(
        title="PatchLens", analytics_enabled=False, delete_cache=(UPLOADS_KEPT_S, UPLOADS_KEPT_S)
    ) as demo:
        Header(facts(backbone, sae, metrics), elem_id="header")
        tabs = [
            "concepts",
            "latents",
            *(["steer"] if steerer else []),
            *(["compare"] if comparison else []),
            "about",
        ]
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Concepts", id="concepts", render_children=True):
                concepts_tab(openings, catalogue, demo)
            with gr.Tab("Latents", id="latents"):
                latents_tab(catalogue, finder)
            if steerer is not None:
                with gr.Tab("Steer", id="steer"):
                    steer_tab(SteerDesk(steerer, openings, catalogue, sources), presets)
            if comparison is not None:
                with gr.Tab("Compare", id="compare"):
                    compare_tab(CompareDesk(comparison, openings, catalogue))
            with gr.Tab("About", id="about"):
                about_tab(tabs)
        card_host(catalogue, tabs)
    return demo.queue(default_concurrency_limit=4, max_size=64)


def launch_settings() -> dict[str, Any]:
    """Keyword arguments of `demo.launch` that belong to the page: theme, styles, limits.

    The app serves the page's scripts itself, by the route in `app_kwargs`.
    """
    import gradio as gr

    from sae.ui.static_files import head, script_route
    from sae.ui.uploads import MAX_UPLOAD

    return {
        "theme": gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "Menlo", "monospace"]),
        "head": head(),
        "app_kwargs": {"routes": [script_route()]},
        "ssr_mode": False,
        "max_file_size": MAX_UPLOAD,
        "footer_links": ["api"],
    }
