"""Several lenses on one server: each at its address, all within the same limits."""

import gc
import io
import json
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image

from sae.errors import ArtifactError, ImageError
from sae.ui import build_demo, launch_settings
from sae.ui import guard as bounds
from sae.ui.catalogue import Catalogue
from sae.ui.doors import Doors
from sae.ui.gallery import Gallery, of_index, read_examples, slug, write_examples
from sae.ui.lenses import Lens, Lenses
from tests.small_page import METRICS, small_world

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Gradio leaves event loops open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
API = "/gradio_api"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    lenses = Lenses(
        (Lens("first", "First", "for one thing"), Lens("second", "Second", "for another"))
    )
    pages = {
        lens.name: build_demo(*small_world(), metrics=METRICS, lens=lens.name, lenses=lenses)
        for lens in lenses.all
    }
    first = pages.pop("first")
    settings = launch_settings(pages)
    first.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **settings)
    with httpx.Client(base_url=first.local_url.rstrip("/"), timeout=300) as one:
        one.pages = {"": first, "/second": pages["second"]}  # type: ignore[attr-defined]
        yield one
    first.close(verbose=False)
    gc.collect()


def called(client: httpx.Client, at: str, *values: object) -> str:
    told = client.post(f"{at}{API}/call/concepts", json={"data": values})
    assert told.status_code == 200, told.text
    return client.get(f"{at}{API}/call/concepts/{told.json()['event_id']}").text


@pytest.mark.slow
def test_each_lens_has_a_page_and_the_switch_leads_there(client):
    for at, up, here in (("", "./", "first"), ("/second", "../", "second")):
        page = client.get(f"{at}/")
        assert page.status_code == 200
        assert "<title>PatchLens</title>" in page.text
        parts = client.get(f"{at}/config").json()["components"]
        (header,) = [one["props"] for one in parts if one["props"].get("elem_id") == "header"]
        rows = header["props"]["setup"]["lenses"]
        assert [row["name"] for row in rows if row["here"]] == [here]
        assert rows[0]["address"] == up
    moved = client.get("/second?v=1&img=own:a1")
    assert (moved.status_code, moved.headers["location"]) == (307, "second/?v=1&img=own:a1")


@pytest.mark.slow
def test_what_is_guarded_at_the_root_is_guarded_below_a_name(client):
    for at in ("", "/second"):
        for address in (
            "/nothing",
            f"{API}/file=/etc/passwd",
            f"{API}/deep/path",
            "/second/second/",
        ):
            answer = client.get(at + address)
            assert answer.status_code in (403, 404), address
            assert "Traceback" not in answer.text
        elsewhere = {"Origin": "http://elsewhere.test"}
        assert client.post(f"{at}{API}/queue/join", json={}, headers=elsewhere).status_code == 403
        long = b'{"data": ["' + b"a" * bounds.MAX_BODY + b'"]}'
        assert client.post(f"{at}{API}/call/concepts", content=long).status_code == 413
        queue = client.pages[at]._queue
        assert queue.pending_messages_per_session.max_size == bounds.MAX_UNREAD


@pytest.mark.slow
def test_the_limits_are_those_of_the_server_not_of_each_page(client):
    first, second = client.pages.values()
    (doors,) = (m for m in first.app.user_middleware if m.cls is Doors)
    (mount,) = doors.args[0]
    one, two = (
        next(m for m in app.user_middleware if m.cls is bounds.Guard).args[0]
        for app in (first.app, mount.app)
    )
    assert one is two
    assert one.pages == [second]
    waiting = SimpleNamespace(alive=True)
    queues = second._queue.event_queue_per_concurrency_id
    queues["test"] = SimpleNamespace(queue=[waiting])
    try:
        assert one.waiting(first) == [waiting] == one.waiting(second)
    finally:
        del queues["test"]


@pytest.mark.slow
def test_concepts_over_http_of_the_lens_that_is_named(client):
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (200, 30, 90)).save(buffer, "PNG")
    (path,) = client.post(f"{API}/upload", files={"files": ("a.png", buffer.getvalue())}).json()
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    rows = json.loads(called(client, "", file).split("data: ")[1])
    assert {"latent", "name"} <= set(rows[0][0])
    for at in ("", "/second"):
        for name in (None, "first", "second"):
            assert json.loads(called(client, at, file, name).split("data: ")[1]) == rows
    said = called(client, "", file, "third")
    assert "There is no such lens here" in said
    assert "'first', 'second'" in said
    wrong = client.post(f"{API}/call/concepts", json={"data": []})
    assert wrong.status_code == 400


def test_examples_of_the_index_and_of_a_folder(tmp_path):
    backbone, sae, index = small_world()
    catalogue = Catalogue(index, sae.cfg.d_sae, (12, 12))
    assert Gallery(catalogue).names[0] == "tiger"  # the emoji world's own scenes
    found = of_index(index)
    assert found
    assert len({one.image_id for one in found}) == len(found) == len({one.name for one in found})
    shown = Gallery(catalogue, found, world=False)
    assert not shown.composes
    image, title = shown.picture(shown.find(found[0].name))
    assert (image.mode, title) == ("RGB", found[0].title)
    with pytest.raises(ImageError, match="no such example"):
        shown.find("../../etc/passwd")
    red = Image.new("RGB", (30, 20), "red")
    write_examples(tmp_path, [("Grand piano", red, "Somebody, CC BY 4.0")])
    (own,) = read_examples(tmp_path)
    assert (own.name, own.title, Gallery(catalogue, [own]).strip()[0]["name"]) == (
        slug("Grand piano"),
        "Grand piano",
        "grand-piano",
    )
    (tmp_path / "examples" / "grand-piano.webp").unlink()
    with pytest.raises(ArtifactError):
        read_examples(tmp_path)
