"""Whether a model answers what it is asked: what was taught, what is unknown, and a caption over again."""

from dataclasses import dataclass

import numpy as np
import pytest

from sae.ui import steer_desk
from sae.ui.questions import NOT_CHECKED, asks_to_describe, doubt, only_describes
from sae.ui.steer_desk import SteerDesk
from sae.world.scenes import Scene, SceneObject
from training.world.words import questions


def test_every_question_of_the_training_is_known_as_taught():
    rng = np.random.default_rng(0)
    for seed in range(200):
        scene = Scene("grass", (SceneObject("tiger", "noto", 40, 40),), seed)
        for question, _ in questions(scene, rng):
            assert doubt(question, [], bundled=True) == ""


@pytest.mark.parametrize(
    "question",
    ["what colour is it", "describe the weather", "what is the background made of", "is it big"],
)
def test_a_question_that_the_bundled_model_was_not_taught_is_told(question):
    assert "taught only to answer" in doubt(question, [], bundled=True)
    assert doubt(question, ["colour"], bundled=True).startswith("The model does not know “colour”")


def test_of_any_other_model_it_is_told_that_answers_were_not_checked():
    assert doubt("what colour is it?", [], bundled=False) == NOT_CHECKED
    assert doubt("Describe the image.", [], bundled=False) == ""
    assert asks_to_describe("Caption this")


@pytest.mark.parametrize(
    ("answer", "caption", "again"),
    [
        ("a tiger and a tulip on grass", "A tiger and a tulip on grass.", True),
        ("a tiger and a tulip on grass", "a tiger and a tulip", True),
        ("a tiger and a dog on grass", "a tiger and a tulip on grass", False),
        ("tiger on grass", "a tiger on grass", True),
        ("a black cat", "a black cat that sleeps on a sofa", False),
        ("grass", "grass", False),
        ("two", "a tiger and a tulip on grass", False),
    ],
)
def test_a_caption_over_again_is_known_by_its_words(answer, caption, again):
    assert only_describes(answer, caption) is again


class Said:
    """A text of a made-up model, as it is streamed."""

    def __init__(self, original: str, *, done: bool = True) -> None:
        self.original, self.done = original, done

    def to_json(self) -> dict[str, object]:
        return {"original": self.original, "done": self.done}


class Stream(list):
    def stop(self) -> None:
        """Nothing goes on."""


@dataclass
class Picture:
    """A prepared one."""

    image: object


class CaptionModel:
    """Says the same whatever it is asked, but for "yes?"; counts its captions."""

    def __init__(self, stops: bool = False) -> None:
        self.captions, self.stops = 0, stops

    def prepare(self, image, *_asked):
        return Picture(image)

    def stream(self, _prepared, request, **_control):
        text = "yes" if request.prompt == "yes?" else "a tiger and a tulip on grass"
        return Stream([Said(text[:9], done=False), Said(text, done=not self.stops)])

    def generate(self, *_asked, **_limit):
        self.captions += 1
        return Said("a tiger and a tulip on grass")


class Pictures:
    def picture(self, request):
        return request


def last_step(desk: SteerDesk, prompt: str, name: str = "tiger") -> dict[str, object]:
    fields = {"picture": {"kind": "example", "data": name}, "steer": {"prompt": prompt}}
    return list(desk.captions(fields, "visit"))[-1]


def test_any_model_that_gives_the_caption_for_an_answer_is_told(monkeypatch):
    model = CaptionModel()
    desk = SteerDesk(lambda: model, Pictures(), None)
    assert last_step(desk, "what colour is it?") == {"only_describes": True}
    assert last_step(desk, "is it warm?") == {"only_describes": True}
    assert last_step(desk, "yes?") == {"only_describes": False}
    assert model.captions == 1, "one caption a picture"
    assert "original" in last_step(desk, "describe the image")
    monkeypatch.setattr(steer_desk, "MAX_CAPTIONS", 2)
    for name in ("bus", "cat", "fox"):
        last_step(desk, "is it warm?", name)
    assert len(desk._captions) == 2


def test_a_stopped_answer_is_not_judged():
    desk = SteerDesk(lambda: CaptionModel(stops=True), Pictures(), None)
    assert last_step(desk, "what colour is it?")["done"] is False
