"""What the server still holds of a visitor's picture after its answers, in every tab: nothing of its size."""

import gc
import io
import json
import os
import types
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from sae.adaptation.compare import Comparison
from sae.steering import Steerer
from sae.ui import build_demo, launch_settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Gradio leaves event loops open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
API = "/gradio_api"
LARGE = 300_000
"""Bytes of arrays: less than the smallest picture here, more than what the bundled models make of one."""
LONG = 60_000
"""Letters or bytes: less than the copy of a picture for the screen, more than what was found in it."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[Any]:
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    steerer = Steerer.from_pretrained("bundled")
    assert steerer.backbone is not None
    comparison = Comparison(steerer.backbone, steerer.sae)
    made = build_demo(
        steerer.backbone,
        steerer.sae,
        steerer.index,
        steerer=lambda: steerer,
        comparison=comparison,
    )
    made.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **launch_settings())
    yield made
    made.close(verbose=False)
    gc.collect()
    os.environ["GRADIO_TEMP_DIR"] = before or ""


class Visitor:
    """A browser's page, which asks in every tab about a picture of its own."""

    def __init__(self, demo: Any, number: int) -> None:
        self.demo, self.name = demo, f"visit{number}"
        self.client = httpx.Client(base_url=demo.local_url.rstrip("/"), timeout=900)
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((640, 480)).save(buffer, "PNG")
        sent = self.client.post(f"{API}/upload", files={"files": ("a.png", buffer.getvalue())})
        self.picture = {"kind": "upload", "data": {"path": sent.json()[0]}}

    def queued(self, event: str, asked: dict[str, object]) -> str:
        """What the page gets for an event of a component."""
        (number,) = [
            n for n, fn in self.demo.fns.items() if any(name == event for _, name in fn.targets)
        ]
        told = {"data": [], "event_data": asked, "fn_index": number, "session_hash": self.name}
        assert self.client.post(f"{API}/queue/join", json=told).status_code == 200
        lines = []
        address = f"{API}/queue/data?session_hash={self.name}"
        with self.client.stream("GET", address) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                if "close_stream" in line:
                    break
        return "\n".join(lines)

    def ask(self, tab: str, way: str, **fields: object) -> dict[str, Any]:
        parts = self.client.get("/config").json()["components"]
        part = next(one["id"] for one in parts if one["props"].get("elem_id") == tab)
        told = {"session_hash": self.name, "fn_name": "ask", "component_id": part}
        answer = self.client.post(
            f"{API}/component_server", json={**told, "data": {"way": way, **fields}}
        ).json()
        assert "problem" not in answer, answer
        return answer

    def all_tabs(self) -> None:
        """One picture, in Concepts, Steer and Compare."""
        assert "data:image/jpeg" in self.queued("open", self.picture)
        steer = {"prompt": "describe the image", "edits": []}
        asked = {"picture": self.picture, "steer": {**steer, "max_new_tokens": 4}}
        assert '"success":true' in self.queued("write", asked)
        assert self.ask("steer", "next", picture=self.picture, steer=steer)["top"]
        self.ask("steer", "next", picture=self.picture, steer={**steer, "prompt": "what is shown"})
        pair = {"task": "fluent", "split": "base", "heads": ["zero_shot", "maple"]}
        assert self.ask("compare", "explain", picture=self.picture, **pair)["concepts"]


def picture_sized(roots: list[object]) -> dict[int, str]:
    """What can be reached from `roots` and is an open picture or as large as one; closures included."""
    seen: set[int] = set()
    found: dict[int, str] = {}
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, types.ModuleType | type | types.FrameType):
            continue
        seen.add(id(one))
        if size := _size(one):
            found[id(one)] = f"{type(one).__name__} of {size}"
        if isinstance(one, types.FunctionType):  # not all that its module knows
            waiting += [one.__closure__, one.__defaults__, one.__kwdefaults__, one.__dict__]
        else:
            waiting += gc.get_referents(one)
    return found


def _size(one: object) -> int:
    if isinstance(one, str | bytes | bytearray):
        return len(one) if len(one) > LONG else 0
    if isinstance(one, Image.Image):
        return one.width * one.height
    if isinstance(one, np.ndarray):
        return one.nbytes if one.nbytes > LARGE else 0
    if isinstance(one, torch.Tensor):
        return one.nbytes if one.nbytes > LARGE else 0
    return 0


def test_no_visitors_picture_is_kept_once_it_is_answered(demo):
    roots = [demo, demo.app, demo.app.state_holder, demo._queue]
    Visitor(demo, 0).all_tabs()  # what is loaded with the first question
    before = picture_sized(roots)
    for number in (1, 2, 3):
        Visitor(demo, number).all_tabs()
    assert {"visit1", "visit2", "visit3"} <= set(demo.app.state_holder.session_data)
    gc.collect()
    now = picture_sized(roots)
    assert [now[one] for one in now if one not in before] == []
    assert all(state.config_values == {} for state in demo.app.state_holder.session_data.values())


def test_the_walk_finds_a_picture_that_is_kept(demo):
    kept = {"answer": "data:image/jpeg;base64," + LONG * "a", "open": Image.new("RGB", (9, 9))}

    def answer() -> object:
        return kept

    found = picture_sized([demo, [answer]])
    assert {id(kept["answer"]), id(kept["open"])} <= set(found)
    assert json.dumps(sorted(found.values()))
