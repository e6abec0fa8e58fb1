"""What strangers send over HTTP: nothing is fetched, kept or looked up for them that is not an upload."""

import gc
import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from sae.ui import build_demo, launch_settings
from sae.ui import guard as bounds
from sae.ui.analysis import Analyst
from sae.ui.dispatch import LEFT, Dispatch, aside, asker_left
from sae.ui.guard import Counted, Refusal
from tests.small_page import METRICS, small_world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Gradio leaves event loops open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FILE = {"_type": "gradio.FileData"}
API = "/gradio_api"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("uploads")
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(path)
    yield path
    os.environ["GRADIO_TEMP_DIR"] = before or ""


@pytest.fixture(scope="module")
def demo(folder) -> Iterator[object]:
    assert folder
    made = build_demo(*small_world(), metrics=METRICS)
    made.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **launch_settings())
    yield made
    made.close(verbose=False)
    gc.collect()


@pytest.fixture
def client(demo) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.local_url.rstrip("/"), timeout=900) as one:
        yield one


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list]]:
    """An address that a server could be made to ask, and who asked."""
    asked: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    asked.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}/a.png", asked
        assert asked == []


def png(colour: tuple[int, int, int] = (200, 30, 90)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(buffer, "PNG")
    return buffer.getvalue()


def send(client: httpx.Client, data: bytes | None = None, field: str = "files") -> httpx.Response:
    files = {field: ("a.png", png() if data is None else data)}
    return client.post(f"{API}/upload", files=files)


def sentence(answer: httpx.Response) -> str:
    assert "Traceback" not in answer.text
    text = answer.json()["detail"]
    assert isinstance(text, str)
    assert len(text) < 200
    assert text.endswith((".", "'"))
    return text


def call(client: httpx.Client, name: str, *values: object) -> httpx.Response:
    """The events of an answer by the queue, or the refusal to ask."""
    asked = client.post(f"{API}/call/{name}", json={"data": values})
    if asked.status_code != 200:
        return asked
    return client.get(f"{API}/call/{name}/{asked.json()['event_id']}")


def ask_component(client: httpx.Client, **fields: object) -> httpx.Response:
    told = {"session_hash": "a", "fn_name": "ask", "data": {"way": "icons", "latents": [1]}}
    return client.post(f"{API}/component_server", json={**told, **fields})


def lens_of(client: httpx.Client) -> int:
    parts = client.get("/config").json()["components"]
    return next(one["id"] for one in parts if one["props"].get("elem_id") == "concepts")


def test_whether_the_page_is_there_is_told_without_making_it(client, monkeypatch):
    def made(*_args: object, **_options: object) -> None:
        raise AssertionError("the page was made")

    monkeypatch.setattr("gradio.blocks.Blocks.get_config_file", made)
    answer = client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_page_and_its_endpoints_are_answered(client):
    assert client.get("/").status_code == 200
    assert set(client.get(f"{API}/info").json()["named_endpoints"]) >= {"/concepts", "/search"}
    path = send(client).json()[0]
    told = call(client, "concepts", {"path": path, "meta": FILE}).text
    assert told.startswith("event: complete")
    rows = json.loads(told.partition("data: ")[2])[0]
    direct = client.post(f"{API}/run/concepts", json={"data": [{"path": path, "meta": FILE}]})
    assert direct.json()["data"][0] == rows
    assert call(client, "search", "tiger", 3).text.startswith("event: complete")
    assert ask_component(client, component_id=lens_of(client)).json().keys() == {"icons"}
    assert client.get(f"{API}/file={path}").content == png()


@pytest.mark.parametrize("scheme", ["http://", "https://", "HTTP://", "ftp://", "//"])
@pytest.mark.parametrize("name", ["concepts", "search", "compare", "steer"])
def test_no_address_is_followed_in_any_field(scheme, name, client, elsewhere):
    there, _ = elsewhere
    address = scheme + there
    lens = lens_of(client)
    uploaded = send(client).json()[0]
    for file in (
        {"path": address, "meta": FILE},
        {"path": address, "url": address, "meta": FILE, "is_stream": True},
        {"path": uploaded, "url": address, "meta": FILE},
        {"path": "/etc/passwd", "meta": FILE},
        {"path": address},
        {"a": [{"b": {"path": address, "meta": FILE}}]},
    ):
        for values in ([file], ["x", file], [None, "x", file], [[[file]]]):
            for way in ("call", "run", "api", "call/v2"):
                refused = client.post(f"{API}/{way}/{name}", json={"data": values})
                assert refused.status_code in (400, 404)
                assert sentence(refused)
        for asked in ({"data": file}, {"data": [file]}, {"event_data": file}):
            told = {"session_hash": "a", "fn_index": 0, "data": [], **asked}
            assert sentence(client.post(f"{API}/queue/join", json=told))
        assert sentence(
            ask_component(client, component_id=lens, data={"way": "open", "data": file})
        )
    for read in (f"file={address}", f"file/{address}", f"proxy={address}"):
        assert client.get(f"{API}/{read}").status_code in (403, 404)
    for bare in (address, [address]):
        assert call(client, "concepts", bare).status_code == 400


def test_only_uploads_are_read(client):
    for path in ("/etc/passwd", "../app.py", "/proc/self/environ", __file__):
        assert client.get(f"{API}/file={path}").status_code == 403
        assert call(client, "concepts", {"path": path, "meta": FILE}).status_code == 400


@pytest.mark.parametrize(
    "address",
    [
        *("/monitoring", "/monitoring/a", f"{API}/dev/reload"),
        *(f"{API}/deep_link?session_hash=a", f"{API}/runs", f"{API}/run-history/buckets"),
        *(f"{API}/vibe-code", f"{API}/profiling/summary", f"{API}/nothing", "/login"),
    ],
)
def test_what_the_page_does_not_need_is_not_public(address, client):
    answer = client.get(address)
    assert answer.status_code == 404
    assert sentence(answer) == bounds.NOT_HERE
    assert client.post(address.partition("?")[0], json={}).status_code == 404


def test_use_via_api_finds_what_it_asks_for_and_no_figures(client):
    assert call(client, "search", "tiger", 3).status_code == 200
    assert client.get("/monitoring/summary").json() == {"functions": {}}
    assert client.get(f"{API}/mcp/schema").json() == []


def test_unknown_numbers_and_names_are_told(client):
    lens = lens_of(client)
    for fields in (
        *({"component_id": n} for n in (99_999, -1, "1", None, [1], {}, True)),
        *({"component_id": lens, "fn_name": name} for name in ("no", "__init__", 3, None)),
    ):
        assert ask_component(client, **fields).status_code == 404
        assert sentence(ask_component(client, **fields))
    for number in (999, -1, "a", None, [0], 1.5):
        told = {"session_hash": "a", "fn_index": number, "data": []}
        assert client.post(f"{API}/queue/join", json=told).status_code == 404
    for way in ("call", "run", "api", "call/v2"):
        assert sentence(client.post(f"{API}/{way}/nothing", json={"data": []}))
    for values in ([], [1, 2, 3], [{}], ["a"], [3]):
        assert call(client, "concepts", *values).status_code == 400
    for values in ({}, {"data": []}, {"picture": None}, {"image": 3, "k": 4}):
        answer = client.post(f"{API}/call/v2/concepts", json=values)
        assert answer.status_code == 400
        assert sentence(answer)
    assert call(client, "search", "a", "many").status_code == 400
    assert call(client, "search", {"a": 1}, 3).status_code == 400


@pytest.mark.parametrize("address", ["call/concepts", "queue/join", "component_server", "reset"])
def test_bodies_are_bounded_and_plain_json(address, client):
    post = lambda **sent: client.post(f"{API}/{address}", **sent)  # noqa: E731
    long = b'{"data": ["' + b"a" * bounds.MAX_BODY + b'"]}'
    assert post(content=long).status_code == 413
    assert post(content=iter([long[:500_000], long[500_000:]])).status_code == 413  # no length told
    for wrong in (b"", b"[1]", b"\xff", b"{", b"[" * 900_000, b'{"session_hash": "../../a"}'):
        answer = post(content=wrong, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500
        assert sentence(answer)
    assert post(files={"data": ("a", b"a")}).status_code == 415


def test_uploads_are_one_file_of_the_size_that_is_told_and_leave_nothing_else(client, folder):
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert send(client, field="other").status_code == 400
    assert send(client, bytes(bounds.MAX_UPLOAD * 1024**2 + 20_000)).status_code == 413
    several = [("files", ("a.png", png())), ("files", ("b.png", png()))]
    assert client.post(f"{API}/upload", files=several).status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=a"}
    assert (
        client.post(f"{API}/upload", content=b"--a\r\nnonsense", headers=broken).status_code == 400
    )
    assert client.post(f"{API}/upload", content=b"a").status_code == 400
    aborted = socket.create_connection((client.base_url.host, client.base_url.port))
    aborted.sendall(
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n"
        b"Content-Type: multipart/form-data; boundary=a\r\n\r\n--a\r\nContent-Disposition: "
        b'form-data; name="files"; filename="a.png"\r\n\r\nabc'
    )
    aborted.close()
    path = send(client).json()[0]
    for _ in range(3):
        assert call(client, "concepts", {"path": path, "meta": FILE}).status_code == 200
    assert {one for one in folder.rglob("*") if one.is_file()} - before == {Path(path)}


def test_another_sites_page_may_not_ask(client):
    for headers, status in (
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": str(client.base_url).rstrip("/")}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy"}, 200),
        ({}, 200),
    ):
        assert (
            client.post(
                f"{API}/upload", files={"files": ("a.png", png())}, headers=headers
            ).status_code
            == status
        )
        lens = {"component_id": lens_of(client), "session_hash": "a", "fn_name": "ask"}
        asked = {**lens, "data": {"way": "icons", "latents": []}}
        answer = client.post(f"{API}/component_server", json=asked, headers=headers)
        assert answer.status_code == status


def test_one_client_cannot_fill_the_queue_for_the_others(client, demo, monkeypatch):
    """While a model runs, HTTP callers are turned away at their bound, and the page is not."""
    go_on, analyse = threading.Event(), Analyst.analyse
    monkeypatch.setattr(Analyst, "analyse", lambda *given: go_on.wait() and analyse(*given))
    events, refused = [], None
    while refused is None and len(events) < 2 * bounds.MAX_QUEUED:
        path = send(client, png((len(events), 1, 2))).json()[0]
        answer = client.post(f"{API}/call/concepts", json={"data": [{"path": path, "meta": FILE}]})
        if answer.status_code == 200:
            events.append(answer.json()["event_id"])
        else:
            refused = answer
    assert refused is not None
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 2
    assert "try again in" in sentence(refused)
    page = next(one for one in demo.fns.values() if one.api_visibility == "private" and one.queue)
    told = {"session_hash": "page", "fn_index": page._id, "data": []}
    assert client.post(f"{API}/queue/join", json=told).status_code == 200
    go_on.set()
    for event in events:
        assert "event: complete" in client.get(f"{API}/call/concepts/{event}").text
    assert call(client, "search", "tiger", 3).status_code == 200


def test_questions_past_the_queue_are_bounded_in_all_and_by_address():
    counted = Counted(3, 2)
    with counted.one("a"), counted.one("a"):
        with pytest.raises(Refusal) as much, counted.one("a"):
            pass
        with counted.one("b"), pytest.raises(Refusal) as full, counted.one("c"):
            pass
    assert (much.value.status, full.value.status) == (429, 503)
    assert full.value.retry_after == much.value.retry_after == 2
    with counted.one("c"):
        assert counted._of == {"c": 1}


def test_little_is_kept_of_sessions_that_clients_make_up(client, demo):
    lens = lens_of(client)
    for number in range(2 * bounds.MAX_SESSIONS):
        ask_component(client, component_id=lens, session_hash=f"made-up-{number}")
    assert len(demo.state_holder.session_data) <= bounds.MAX_SESSIONS + 1
    assert demo._queue.pending_messages_per_session.max_size == bounds.MAX_UNREAD


def test_what_nobody_waits_for_is_not_begun():
    ran: list[int] = []
    dispatch = Dispatch()
    dispatch.offer(count=lambda _fields: ran.append(1) or {})
    left = threading.Event()
    token = asker_left.set(left)
    assert dispatch.ask({"way": "count"}) == {}
    left.set()
    assert dispatch.ask({"way": "count"}) == {"problem": LEFT}
    asker_left.reset(token)
    assert ran == [1]


def test_a_picture_is_decoded_while_others_have_their_turn():
    dispatch, begun, go_on = Dispatch(), threading.Event(), threading.Event()

    def decode(_fields):
        with aside():
            begun.set()
            go_on.wait()
        return {"by": "model"}

    dispatch.offer(decode=decode, quick=lambda _fields: {"quick": True})
    answers: list[dict] = []
    slow = threading.Thread(target=lambda: answers.append(dispatch.ask({"way": "decode"})))
    slow.start()
    begun.wait()
    assert dispatch.ask({"way": "quick"}) == {"quick": True}
    go_on.set()
    slow.join()
    assert answers == [{"by": "model"}]
    assert dispatch.ask({"way": "quick"}) == {"quick": True}
