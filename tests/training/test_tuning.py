"""What prompt training chooses, it chooses on pictures that no figure is measured on, and says so."""

import json

import pytest

from sae.storage import read_json
from tests.training.test_prompts_command import clip, folder, templates, words  # noqa: F401
from training import prompts
from training.tasks import seeds
from training.tasks.data import open_task
from training.tasks.tuning import TUNING, tune


def stepwise(accuracies: dict, asked: list):
    """A trial that answers from a table and notes what it was asked."""

    def trial(rate, length):
        asked.append((rate, length))
        return accuracies[rate, length]

    return trial


def test_the_best_is_chosen_the_first_of_equals_and_nothing_is_tried_twice(tmp_path):
    tries = [(0.1, 2), (0.2, 2), (0.3, 2)]
    seen: list = []
    table = {tries[0]: 0.5, tries[1]: 0.75, tries[2]: None}
    assert tune(tries, stepwise(table, seen), tmp_path, {"n": 1}, keep=True) is None  # stopped
    table[tries[2]] = 0.75
    found = tune(tries, stepwise(table, seen), tmp_path, {"n": 1}, keep=True)
    assert (found["lr"], found["epochs"]) == (0.2, 2)
    assert [each["accuracy"] for each in found["tried"]] == [0.5, 0.75, 0.75]
    assert seen == [*tries, tries[2]]
    with pytest.raises(ValueError, match="other options or pictures"):
        tune(tries, stepwise(table, seen), tmp_path, {"n": 2}, keep=True)


@pytest.mark.parametrize("where", ["bundled", "folder"])
def test_validation_pictures_are_neither_trained_on_nor_reported(where, request):
    if where == "bundled":
        data, shots, each = open_task("texture"), 4, 3
    else:
        root = request.getfixturevalue("folder")
        data, shots, each = open_task("x", str(root), ("the {}",)), 3, 2
    few, held = data.few_shot("base", shots, 0), data.validation("base", each, 0, shots)
    assert len(held) == each * len(data.base)
    prints = [
        {str(s) if where == "folder" else s.tobytes() for s in part.sources}
        for part in (few, held, *(data.test("base", 40, seed, shots, held) for seed in (0, 1, 2)))
    ]
    assert not prints[1] & prints[0]
    for test in prints[2:]:
        assert not prints[1] & test


def test_several_rates_are_tried_and_the_choice_is_in_the_heads_files(
    clip,  # noqa: F811
    folder,  # noqa: F811
    templates,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    size = lambda _parts, classifier, _test: min(1.0, float(classifier.weights.detach().norm()) / 9)  # noqa: E731
    monkeypatch.setattr(seeds, "measure", size)  # what was trained most is best
    options = ["--method", "linear", "--lr", 1e-9, 0.1, "--epochs", 1, 6, "--validation", 1]
    call = words(clip, folder, templates, tmp_path, *options, "--seeds", 3, 4, "--shots", 3)
    prompts.main(call)
    head = tmp_path / "heads" / "colours" / "linear"
    metrics = read_json(head / "metrics.json")
    assert [(each["lr"], each["epochs"]) for each in metrics["tuned"]["tried"]] == [
        (1e-9, 1),
        (1e-9, 6),
        (0.1, 1),
        (0.1, 6),
    ]
    for chosen in (metrics["options"], metrics["tuned"]):
        assert (chosen["lr"], chosen["epochs"]) == (0.1, 6)
    assert metrics["tuned"]["validation"] == 2
    for name in ("seed-3.json", "seed-4/seed-4.json"):
        assert json.loads((head / name).read_text())["options"]["tuned"] == metrics["tuned"]
    assert (head / TUNING).is_file()
    assert not (head / "tries").exists()
    monkeypatch.setattr(seeds, "fit", None)  # nothing is trained again
    prompts.main(call)
    assert read_json(head / "metrics.json") == metrics


def test_one_value_of_each_is_taken_as_it_is():
    args = prompts.parse(["--method", "vpt", "--task", "fluent", "--lr", "0.02"])
    assert (args.rates, args.lengths) == ([0.02], [])
    for wrong in (["--lr", "0.1", "0.1"], ["--epochs", "0"], ["--validation", "0"]):
        with pytest.raises(SystemExit):
            prompts.parse(["--method", "vpt", "--task", "fluent", *wrong])
