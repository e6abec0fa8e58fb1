"""Questions of the tabs: unknown ones, failing ones, too many at once."""

import logging
import threading

from sae.ui.dispatch import BUSY, MAX_WAITING, UNEXPECTED, Turn, answered


def fails(_fields):
    raise RuntimeError("of no concern to a visitor")


def refuses(_fields):
    raise ValueError("a word was expected")


WAYS = {"echo": lambda fields: {"said": fields["text"]}, "fails": fails, "refuses": refuses}


def test_a_known_way_answers_and_nonsense_is_one_sentence(caplog):
    turn = Turn()
    assert answered({"way": "echo", "text": "hi"}, WAYS, turn) == {"said": "hi"}
    for nonsense in (None, 3, [], "echo", {}, {"way": ["echo"]}, {"way": "__class__"}):
        assert "Reload" in answered(nonsense, WAYS, turn)["problem"]
    assert answered({"way": "refuses"}, WAYS, turn) == {"problem": "A word was expected."}
    with caplog.at_level(logging.ERROR):
        assert answered({"way": "fails"}, WAYS, turn) == {"problem": UNEXPECTED}
    assert "of no concern" in caplog.text
    assert answered({"way": "echo", "text": "still"}, WAYS, turn) == {"said": "still"}


def test_a_crowd_is_turned_away_and_the_rest_is_answered():
    turn, begun, go_on = Turn(), threading.Event(), threading.Event()
    slow = {"slow": lambda _fields: begun.set() or go_on.wait(20) and {} or {}}
    found: list[dict] = []
    ask = lambda: found.append(answered({"way": "slow"}, slow, turn))  # noqa: E731
    crowd = [threading.Thread(target=ask) for _ in range(MAX_WAITING)]
    for one in crowd:
        one.start()
    assert begun.wait(20)
    while turn._seats._value:
        pass
    assert answered({"way": "slow"}, slow, turn) == {"problem": BUSY}
    go_on.set()
    for one in crowd:
        one.join(20)
    assert found == [{}] * MAX_WAITING
