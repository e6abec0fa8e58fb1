"""The recorded experiments that ship: what they say is what the bundled models say."""

import pytest

from sae.steering import SteerRequest
from sae.storage import read_json
from sae.ui.examples import EXAMPLES, picture_of
from training.steering.experiments import (
    BUNDLED,
    DESCRIBE,
    EXPERIMENTS,
    Experiment,
    bears_out,
    record,
    up,
)

SHIPPED = read_json(BUNDLED / "steering" / "presets.json")["presets"]
PICTURES = {example.name: picture_of(example.scene) for example in EXAMPLES}


@pytest.mark.parametrize("experiment", SHIPPED, ids=[experiment["title"] for experiment in SHIPPED])
def test_a_recorded_text_is_what_the_models_say(steerer, experiment):
    request = SteerRequest.from_json(
        {"prompt": experiment["prompt"], "edits": experiment["edits"], "max_new_tokens": 48}
    )
    *_, said = steerer.stream(PICTURES[experiment["example"]], request)
    recorded = experiment["recorded"]
    for name in ("original", "steered", "control", "control_latent", "done"):
        assert getattr(said, name) == recorded[name]
    assert said.relative_change == pytest.approx(recorded["relative_change"], rel=1e-3)


def test_every_experiment_is_recorded_and_one_shows_a_failure():
    assert [experiment["title"] for experiment in SHIPPED] == [
        experiment.title for experiment in EXPERIMENTS
    ]
    assert 6 <= len(SHIPPED) <= 8
    unchanged = [p for p in SHIPPED if p["recorded"]["original"] == p["recorded"]["steered"]]
    assert len(unchanged) == 1
    for experiment in SHIPPED:
        regions = {tuple(edit.get("scope", {}).get("patches", ())) for edit in experiment["edits"]}
        assert len(regions - {()}) <= 1, "the tab has one chosen region"


def test_what_is_not_borne_out_is_left_out(steerer, capsys):
    def first(prepared):
        return up("cat", 0.01)(prepared)

    assert (
        record(steerer, Experiment("No cat", "tiger", first, gains="cat"), PICTURES["tiger"])
        is None
    )
    assert "LEFT OUT  No cat: a tiger" in capsys.readouterr().out
    assert bears_out(Experiment("", "", first, gains="cat"), "a dog", "a cat")
    assert not bears_out(Experiment("", "", first, keeps="dog"), "a dog", "a cat")
    assert not bears_out(Experiment("", "", first, fails=True), "a dog", "a cat")
    assert DESCRIBE in {experiment["prompt"] for experiment in SHIPPED}
