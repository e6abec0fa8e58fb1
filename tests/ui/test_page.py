"""The page as it is built: its tabs, what is on screen, and what its scripts are told."""

import gc
import json

import pytest

from sae import Steerer
from sae.adaptation.compare import Comparison
from sae.ui import TABS, build_demo
from sae.ui.options import EXPERIMENTS
from tests.small_page import METRICS, small_world

pytestmark = [  # Gradio leaves event loops open
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def built(*models, **more) -> dict:
    """The page's configuration; what Gradio leaves behind is gone before another test begins."""
    config = build_demo(*models, **more).config
    gc.collect()
    return config


@pytest.fixture(scope="module")
def small() -> dict:
    return built(*small_world(), metrics=METRICS)


@pytest.fixture(scope="module")
def whole() -> dict:
    """Every tab there is, on the bundled models."""
    steerer = Steerer.from_pretrained("bundled")
    models = (steerer.backbone, steerer.sae, steerer.index)
    comparison = Comparison(steerer.backbone, steerer.sae)
    more = {"experiments": EXPERIMENTS, "comparison": comparison}
    return built(*models, steerer=lambda: steerer, **more)


def of_type(config: dict, kind: str) -> list[dict]:
    return [one["props"] for one in config["components"] if one["type"] == kind]


def test_a_tab_is_there_if_what_it_needs_is(small, whole):
    assert [tab["id"] for tab in of_type(whole, "tabitem")] == [tab.name for tab in TABS]
    bare = [tab.name for tab in TABS if not tab.needs]
    assert [tab["id"] for tab in of_type(small, "tabitem")] == bare
    (card,) = [html for html in of_type(small, "html") if html["elem_id"] == "card"]
    assert card["props"]["setup"]["tabs"] == bare


def test_only_the_pages_own_components_are_on_screen(whole):
    for one in whole["components"]:
        own = one["type"] in ("html", "tabs", "tabitem", "form")
        assert own or one["props"].get("visible") is False, one


def test_the_endpoints_take_what_they_say(whole):
    named = {d["api_name"]: d for d in whole["dependencies"] if d["api_visibility"] == "public"}
    assert set(named) == {"concepts", "search", "steer", "compare"}
    labels = {one["id"]: one["props"].get("label") for one in whole["components"]}
    assert [labels[i] for i in named["compare"]["inputs"]] == [
        "image",
        "task",
        "first head",
        "second head",
    ]
    assert [labels[i] for i in named["concepts"]["inputs"]] == ["image", "lens"]


def test_every_component_is_told_the_limits_once_and_the_same(whole):
    told = [
        html["props"]["setup"]["limits"]
        for html in of_type(whole, "html")
        if "setup" in html.get("props", {})
    ]
    assert len(told) >= len(TABS)
    assert all(limits == told[0] for limits in told)
    assert all(isinstance(value, int | float | str) for value in told[0].values())
    assert json.dumps(told[0])
