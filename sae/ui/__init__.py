"""The app's face: `build_demo` turns loaded models into a Gradio page.

Knows: Gradio, views, catalogue. Does not know: command lines (see `options`), training.
Importing this package is light; Gradio is imported when a page is built.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import gradio

    from sae.adaptation.class_compare import ClassComparison
    from sae.adaptation.compare import Comparison
    from sae.backbones import Backbone
    from sae.concepts.fit import Fit
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder
    from sae.steering import ClassSteerer, Steerer
    from sae.ui.bounds import Bounds
    from sae.ui.gallery import Shown
    from sae.ui.lenses import Lenses

__all__ = ["build_demo", "launch_settings"]


def _upload_folder() -> Path:
    """A folder of this app's and this user's alone, the same after a restart: it is swept."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"patchlens-{user}"


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")  # nobody is told of them
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
os.environ.setdefault("GRADIO_TEMP_DIR", str(_upload_folder()))

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]


class Tab(NamedTuple):
    """A tab of the page."""

    name: str
    """In the address bar and in the elements' ids."""
    label: str
    module: str
    """Its `build(page)` makes the tab; see `sae.ui.page.Page` for what it is given."""
    needs: str = ""
    """The argument of `build_demo` without which there is no such tab."""


TABS = (
    Tab("concepts", "Concepts", "sae.ui.concepts_tab"),
    Tab("latents", "Map", "sae.ui.latents_tab"),
    Tab("steer", "Steer", "sae.ui.steer_tab", needs="steerer"),
    Tab("compare", "Compare", "sae.ui.compare_tab", needs="comparison"),
    Tab("about", "About", "sae.ui.frame"),
)
"""In this order. A new tab is a line here, a file that builds it, a desk that answers it, and what
its scripts draw in `static/`."""


def build_demo(
    backbone: "Backbone",
    sae: "SparseAutoencoder",
    index: "ConceptIndex | None" = None,
    *,
    metrics: Mapping[str, object] | None = None,
    steerer: "Callable[[], Steerer] | ClassSteerer | None" = None,
    experiments: "Path | None" = None,
    comparison: "Comparison | ClassComparison | None" = None,
    sources: tuple[str, str] = ("bundled", "bundled"),
    examples: "Sequence[Shown]" = (),
    fit: "Fit | None" = None,
    lens: str = "",
    lenses: "Lenses | None" = None,
) -> "gradio.Blocks":
    """The page for one backbone, one SAE made for it and, where there is one, its index.

    `metrics` is the content of the artifact's metrics.json. `steerer` loads the model that the
    Steer tab asks, or is the backbone's own classifier; without one there is no such tab.
    `experiments` is a file of recorded ones.
    `comparison` knows the heads of the Compare tab, or the backbone's classes; without one there is no
    such tab. `sources` names what `steerer` and `sae` were loaded from, for the Python that is taken
    away. `examples` are what `sae.ui.gallery.read_examples` found, `fit` says which pictures are foreign.
    `lens` is this page's name among `lenses`, those of the server; without them the page is alone.
    Raises ValueError where the SAE or the index does not fit. Start the page with
    `demo.launch(**launch_settings())`.
    """
    import gradio as gr

    from sae.ui import frame
    from sae.ui.analysis import Analyst
    from sae.ui.catalogue import Catalogue
    from sae.ui.concepts_desk import ConceptsDesk
    from sae.ui.dispatch import Dispatch
    from sae.ui.gallery import Gallery
    from sae.ui.guard import MAX_QUEUED
    from sae.ui.identity import identity
    from sae.ui.lenses import Lens, Lenses
    from sae.ui.page import Page
    from sae.ui.page_head import TITLE

    analyst = Analyst(backbone, sae)
    catalogue = Catalogue(index, sae.cfg.d_sae, analyst.grid)
    lenses = Lenses((Lens(lens, "", ""),)) if lenses is None else lenses
    gallery = Gallery(catalogue, examples, world=backbone.id == "bundled")
    desk = ConceptsDesk(analyst, catalogue, lenses.uploads, gallery)
    lenses.add(lens, desk, fit)
    there = {"steerer": steerer, "comparison": comparison}
    tabs = [tab for tab in TABS if not tab.needs or there[tab.needs] is not None]
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        page = Page(
            demo=demo,
            backbone=backbone,
            sae=sae,
            index=index,
            metrics=metrics,
            catalogue=catalogue,
            concepts=desk,
            dispatch=Dispatch(lenses.turns),
            steerer=steerer,
            experiments=experiments,
            comparison=comparison,
            sources=sources,
            about=identity(backbone, sae, index, sources[1]),
            tabs=tuple(tab.name for tab in tabs),
            lens=lens,
            lenses=lenses,
        )
        frame.header(page)
        with gr.Tabs(elem_id="tabs"):
            for tab in tabs:
                with gr.Tab(tab.label, id=tab.name, render_children=tab is TABS[0]):
                    import_module(tab.module).build(page)
        frame.card(page)
    return demo.queue(default_concurrency_limit=4, max_size=2 * MAX_QUEUED)


def launch_settings(beside: "Mapping[str, gradio.Blocks] | None" = None) -> dict[str, Any]:
    """Keyword arguments of `demo.launch` that belong to the page: theme, styles, limits.

    `beside`: further pages of the same server by name, each at /NAME/ and within the same limits.
    The app serves the page's scripts and takes uploads itself, by the routes in `app_kwargs`; `Guard`
    stands before Gradio, and `PageHead` names the page before any script does.
    """
    from starlette.middleware import Middleware

    from sae.ui import doors, guard

    bounds = guard.Bounds()
    settings = _page_settings(bounds)
    app = settings["app_kwargs"]
    app["lifespan"] = guard.beside
    if beside:
        bounds.pages += beside.values()
        mounts, lifespan = doors.mount(beside, lambda: _page_settings(bounds))
        app["middleware"].insert(0, Middleware(doors.Doors, mounts))
        app["lifespan"] = doors.together(guard.beside, lifespan)
    return settings


def _page_settings(bounds: "Bounds") -> dict[str, Any]:
    """What `launch` and `mount_gradio_app` are told of every page."""
    import gradio as gr
    from starlette.middleware import Middleware

    from sae.ui.guard import MAX_SESSIONS, MAX_UPLOAD, ROUTES, Guard, bounded
    from sae.ui.page_head import PageHead
    from sae.ui.static_files import head, script_route

    return {
        "theme": gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "Menlo", "monospace"]),
        "head": head(),
        "app_kwargs": {
            "routes": [script_route(), *ROUTES],
            "middleware": [Middleware(Guard, bounds), Middleware(PageHead)],
            "lifespan": bounded,
        },
        "ssr_mode": False,
        "max_file_size": f"{MAX_UPLOAD}mb",
        "footer_links": ["api"],
        "state_session_capacity": MAX_SESSIONS,
        "enable_monitoring": False,
        "run_history": False,
    }
