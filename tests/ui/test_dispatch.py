"""Questions of the tabs: unknown ones, failing ones, too many at once, and what visitors are told."""

import logging
import threading

import numpy as np
import pytest
import torch

from sae.errors import ImageError
from sae.images import open_image
from sae.steering.edits import SteerRequest
from sae.ui.dispatch import BUSY, MAX_WAITING, NOT_UNDERSTOOD, UNEXPECTED, Dispatch, QuestionError
from tests.tiny_saes import tiny_sae


def fails(_fields):
    raise RuntimeError("of no concern to a visitor")


def refuses(fields):
    SteerRequest.from_json({"prompt": fields.get("prompt", "")})


@pytest.fixture
def dispatch() -> Dispatch:
    made = Dispatch()
    made.offer(echo=lambda fields: {"said": fields["text"]}, fails=fails, refuses=refuses)
    return made


def raised_by_sae(error: Exception) -> None:
    """Raise it as code of the package does."""
    exec("raise error", {"__name__": "sae.somewhere", "error": error})


def test_activations_that_are_no_numbers_are_told_with_their_layer(dispatch):
    encode = tiny_sae("batch_topk").encode_sparse
    dispatch.offer(see=lambda _fields: encode(torch.full((1, 3, 16), torch.nan)))
    problem = dispatch.ask({"way": "see"})["problem"]
    assert problem.startswith("Activations of shape (1, 3, 16) hold NaN")
    assert "layer 4 of bundled" in problem


def test_a_known_way_answers_and_nonsense_is_one_sentence(dispatch, caplog):
    assert dispatch.ask({"way": "echo", "text": "hi"}) == {"said": "hi"}
    assert dispatch.ask({"way": "echo", "text": "hi", "ticket": 3}) == {"said": "hi", "ticket": 3}
    for nonsense in (None, 3, [], "echo", {}, {"way": ["echo"]}, {"way": "__class__"}):
        assert dispatch.ask(nonsense) == {"problem": NOT_UNDERSTOOD}
    told = dispatch.ask({"way": "refuses", "ticket": "${1}"})
    assert told["problem"].startswith("The prompt is empty; ask something")
    assert told["ticket"] == 0
    with caplog.at_level(logging.ERROR):
        assert dispatch.ask({"way": "fails"}) == {"problem": UNEXPECTED}
    assert "of no concern" in caplog.text
    assert dispatch.ask({"way": "echo", "text": "still"}) == {"said": "still"}


def test_two_tabs_cannot_take_one_name(dispatch):
    with pytest.raises(ValueError, match="'echo'.* other names"):
        dispatch.offer(echo=refuses)


@pytest.mark.parametrize(
    "text",
    [
        "/srv/app/sae/bundled/config.json: the file is cut off",
        "cannot read '/root/.cache/x.npz'",
        "the index in ~/runs/first is damaged",
        "the artifact (/data/a/b) is of another version",
        "no such file: C:\\Users\\someone\\sae",
        "index=/srv/concepts",
        "there is no /secret.png",
        "see file:///etc/hostname",
        "runs/first/concepts/exemplars.npz is damaged",
    ],
)
@pytest.mark.parametrize("kind", [ValueError, ImageError, OSError])
def test_no_server_path_is_ever_told(dispatch, text, kind, caplog):
    def way(_fields):
        raised_by_sae(kind(text))

    def steps(_fields):
        yield {"text": "so far"}
        raised_by_sae(kind(text))

    dispatch.offer(reads=way)
    assert dispatch.ask({"way": "reads"}) == {"problem": UNEXPECTED}
    with pytest.raises(QuestionError) as told:  # as the HTTP endpoints hear it
        dispatch.run(lambda: way({}))
    assert str(told.value) == UNEXPECTED
    assert list(dispatch.stream({"ticket": 2}, steps))[-1] == {"ticket": 2, "problem": UNEXPECTED}
    assert text in caplog.text, "the log has it"


@pytest.mark.parametrize(
    "text",
    [
        "send a picture: predict(handle_file(path), …, api_name='/steer')",
        "the tokenizer does not know 'and/or'; try another word",
        "the SAE was trained on 'openai/clip-vit-base-patch16', layer -2",
        "latent 9: this SAE has latents 0 to 8",
    ],
)
def test_what_was_written_for_people_is_told(dispatch, text):
    dispatch.offer(says=lambda _fields: raised_by_sae(ValueError(text)))
    assert dispatch.ask({"way": "says"}) == {"problem": text[0].upper() + text[1:] + "."}


def test_what_a_library_raises_is_not_told(dispatch, caplog):
    dispatch.offer(stacks=lambda _fields: {"n": np.stack([])})
    assert dispatch.ask({"way": "stacks"}) == {"problem": UNEXPECTED}
    assert "at least one array" in caplog.text


def test_a_picture_that_is_none_is_told_without_its_folder(dispatch, tmp_path):
    (tmp_path / "notes.png").write_text("hello")
    dispatch.offer(opens=lambda _fields: {"image": open_image(tmp_path / "notes.png")})
    problem = dispatch.ask({"way": "opens"})["problem"]
    assert problem != UNEXPECTED
    assert str(tmp_path) not in problem


def test_a_crowd_is_turned_away_and_the_rest_is_answered(dispatch):
    seated, go_on = threading.Semaphore(0), threading.Event()

    def slow(_fields):
        seated.release()
        go_on.wait()
        return {}

    dispatch.offer(model=False, slow=slow)
    answers: list[dict] = []
    crowd = [
        threading.Thread(target=lambda: answers.append(dispatch.ask({"way": "slow"})), daemon=True)
        for _ in range(MAX_WAITING)
    ]
    for one in crowd:
        one.start()
    for _ in crowd:
        seated.acquire()
    assert dispatch.ask({"way": "slow"}) == {"problem": BUSY}
    assert list(dispatch.stream({}, lambda _fields: iter(()))) == [{"ticket": 0, "problem": BUSY}]
    go_on.set()
    for one in crowd:
        one.join()
    assert answers == [{}] * MAX_WAITING
    assert dispatch.ask({"way": "echo", "text": "on"}) == {"said": "on"}


def test_one_model_runs_at_a_time_also_between_the_steps_of_a_text(dispatch):
    running: list[str] = []

    def forward(name):
        assert not running, f"{name} while {running}"
        running.append(name)
        running.pop()
        return {}

    def steps(_fields):
        for _ in range(50):
            yield forward("text")

    dispatch.offer(forward=lambda _fields: forward("question"))
    answers: list[dict] = []
    ask = lambda: answers.extend(dispatch.ask({"way": "forward"}) for _ in range(50))  # noqa: E731
    others = [threading.Thread(target=ask) for _ in range(3)]
    for one in others:
        one.start()
    told = list(dispatch.stream({"ticket": 5}, steps))
    for one in others:
        one.join()
    assert told == [{"ticket": 5}] * 50 + [{"ticket": 5, "ended": True}]
    assert answers == [{}] * 150


def test_a_text_that_is_left_gives_its_seat_back(dispatch):
    for _ in range(2 * MAX_WAITING):
        left = dispatch.stream({}, lambda _fields: iter_text())
        assert next(left) == {"ticket": 0, "text": "a"}
        left.close()
    assert dispatch.ask({"way": "echo", "text": "hi"}) == {"said": "hi"}


def iter_text():
    while True:
        yield {"text": "a"}
