"""What stands around the tabs: the header, the concept card, and the About tab.

Knows: configurations and metrics of the loaded models. Does not know: pictures, events, who opens a
card; the scripts talk through `bus.js`.
"""

import re
from collections.abc import Mapping

import gradio as gr

from sae.backbones import Backbone
from sae.model import SparseAutoencoder
from sae.ui.lenses import PHOTOS
from sae.ui.page import Page
from sae.ui.static_files import template
from sae.ui.take_desk import TakeDesk

_ONLY_IF = re.compile(r'<(div|span|li) data-if="(\w+)">(.*?)</\1>', re.DOTALL)
PROMISE = "See what a vision model looked at, turn it off, and watch its answer change."
LOOK = "See what a vision model looked at, and where else it sees the same."


def build(page: Page) -> None:
    """The About tab: method, limits, citations, licences; it tells of this lens and its tabs."""
    tower = "convolutional" if page.backbone.is_convolutional else "transformer"
    there = {*page.forms, tower, page.lens}
    there |= {"scenes"} if page.concepts.gallery.composes else set()
    there |= {"classes"} if page.backbone.classes else {"named_by_text"}

    def kept(part: "re.Match[str]") -> str:
        whole, tag = part[3], part[1]
        return "" if part[2] not in there else f"<li>{whole}</li>" if tag == "li" else whole

    gr.HTML(
        html_template=_ONLY_IF.sub(kept, template("about.html")),
        js_on_load=None,
        apply_default_css=False,
        elem_id="about",
    )


def header(page: Page) -> None:
    """The header: what one can do here, the lenses to choose from, and the models' figures."""
    said = facts(page.backbone, page.sae, page.metrics)
    promise = PROMISE if "steer" in page.tabs else LOOK
    page.component(
        "header",
        "header.js",
        value={**said, "promise": promise},
        lenses=page.lenses.switch(page.lens),
        guided=page.lens == PHOTOS.name,
    )


def card(page: Page) -> None:
    """The concept card, a dialog over every tab, and the tabs' place in the address bar."""
    TakeDesk(page).offer(page.dispatch)
    page.component("card", "card.js", tabs=list(page.tabs), statistics=page.catalogue.statistics())


def facts(
    backbone: Backbone, sae: SparseAutoencoder, metrics: Mapping[str, object] | None
) -> dict[str, object]:
    """How the model looks, figures as (term, text, explanation), and a warning where models differ."""
    cfg = sae.cfg
    layer = backbone.resolve_layer(cfg.backbone.layer)
    rows, columns = backbone.patch_grid
    name = model_name(backbone.id)
    figures = [
        ("Backbone", name, f"{backbone.family}, width {backbone.d_model}"),
        (
            "Layer",
            f"{layer} of 0 to {backbone.n_layers - 1}",
            f"counted from 0, as --layer {layer} does",
        ),
        ("SAE", sae.architecture.label, "how the SAE chooses concepts"),
        (
            "Concepts",
            f"{cfg.d_sae:,}",
            "units of the SAE, each a direction that it has learned",
        ),
    ]
    fvu, l0 = _figure(metrics, "fvu"), _figure(metrics, "l0")
    if l0 is not None:
        figures.append(("At once", f"{l0:.1f}", "concepts that fire at one place on average (L0)"))
    if fvu is not None:
        figures.append(
            (
                "Unexplained",
                f"{100 * fvu:.1f} %",
                "of the activations, what the concepts do not rebuild (FVU)",
            )
        )
    lead = (
        f"{_tower(backbone)} sees {rows} × {columns} patches; a sparse autoencoder (SAE) tells which of "
        f"{cfg.d_sae:,} concepts are in each."
    )
    return {"lead": lead, "figures": figures, "warning": _warning(backbone, sae)}


def _tower(backbone: Backbone) -> str:
    if backbone.is_convolutional:
        return "A convolutional network"
    return "A vision transformer"


def model_name(id: str) -> str:
    """A backbone's id as people read it."""
    carried = {"bundled": "Emoji World CLIP (bundled)", "photos": "EfficientNet-Lite0 (bundled)"}
    return carried.get(id) or id.rstrip("/").split("/")[-1]


def _warning(backbone: Backbone, sae: SparseAutoencoder) -> str:
    made_for, said = sae.cfg.backbone.id, []
    if made_for != backbone.id:
        said.append(
            f"This SAE was made for {made_for} and is running on {backbone.id}: if these are not "
            "the same weights, its concepts mean nothing here."
        )
    if sae.cfg.backbone.tokens == "cls":
        said.append(
            "This SAE was trained on the summary token (CLS) alone. Its concepts describe whole "
            "pictures; what it says of single patches is outside of what it has learned."
        )
    return " ".join(said)


def _figure(metrics: Mapping[str, object] | None, name: str) -> float | None:
    """A figure of metrics.json, written plainly or as {"value": …}."""
    figure = (metrics or {}).get(name)
    if isinstance(figure, Mapping):
        figure = figure.get("value")
    return float(figure) if isinstance(figure, int | float) else None
