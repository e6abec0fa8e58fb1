"""What is made with its first use is made once, also by threads that ask at the same time."""

import threading
from pathlib import Path

import pytest

from sae.lazy import lazy
from sae.ui.steer_desk import SteerDesk

ROOT = Path(__file__).resolve().parents[1]
PER_BATCH = ("sae/concepts/build/",)
"""Where objects belong to one thread."""


def asked_by_two(ask) -> list[object]:
    """What two threads hear that call `ask(begun)`; each waits in it until the other is there too."""
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return answers


class Loader:
    """Makes something new each time it is called, slowly enough for another thread to call it too."""

    def __init__(self) -> None:
        self.calls, self.again = 0, threading.Event()

    def __call__(self) -> object:
        self.calls += 1
        if self.calls > 1:
            self.again.set()
        self.again.wait(0.3)  # ends at once when it is called a second time
        return object()


def test_two_first_questions_load_one_model():
    load = Loader()
    desk = SteerDesk(load, None, None)
    first, second = asked_by_two(lambda: desk.steerer)
    assert first is second
    assert load.calls == 1


def test_each_object_has_its_own_and_a_failure_is_tried_again():
    class Holder:
        ready = False

        @lazy
        def thing(self) -> object:
            """Something."""
            if not self.ready:
                raise OSError("not yet")
            return object()

    one, other = Holder(), Holder()
    with pytest.raises(OSError, match="not yet"):
        _ = one.thing
    one.ready = other.ready = True
    assert one.thing is one.thing
    assert one.thing is not other.thing
    assert Holder.thing.__doc__ == "Something."


def test_nothing_that_threads_share_is_cached_without_a_lock():
    unlocked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "sae").rglob("*.py"))
        if "@cached_property" in path.read_text(encoding="utf-8")
    ]
    assert [path for path in unlocked if not path.startswith(PER_BATCH)] == []
