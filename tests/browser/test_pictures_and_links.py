"""Links, composed scenes, bad files, two visitors, phones and the HTTP endpoint, in a real browser."""

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from tests.browser.concepts_page import click_patch, query, title, upload
from tests.browser.serving import PATIENCE_S, Visit, chromium, client_of

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")


@pytest.mark.parametrize(
    "asked",
    [
        "?v=1&img=ex:${document.title='hacked'}&p=-4&z=1e9&rank=<img onerror=document.title='hacked' src=x>",
        "?v=1&img=<img src=x onerror=document.title='hacked'>&p=99999999999&z=-1",
        "?v=2&img=ex:tiger",
        "?v=1&img=sc:grass.0~${1}.noto.1.1.large.0&scale={{value}}",
    ],
)
def test_hostile_links_are_inert_and_say_so(visit, asked):
    page = visit.open(asked)
    page.wait_for_selector(".pl-misfit:not([hidden])")
    assert (
        page.locator(".pl-misfit p").inner_text().startswith("This link does not quite fit here: ")
    )
    assert page.title() == "PatchLens"
    assert page.locator(".pl-example[aria-pressed=true]").count() == 1
    assert visit.errors == []


def test_a_link_brings_back_the_view(visit, running, url):
    page = visit.open("?v=1&img=ex:camel")
    click_patch(page, 40)
    page.locator(".pl-concept").nth(2).click()
    page.locator(".pl-scale [data-value=image]").click()
    address = page.url
    other = Visit(running, url)
    again = other.open(address.removeprefix(url))
    assert again.url == address
    assert again.locator(".pl-title").inner_text() == "One patch"
    assert (
        again.locator(".pl-concept[aria-pressed=true] .pl-name").inner_text()
        == page.locator(".pl-concept[aria-pressed=true] .pl-name").inner_text()
    )
    other.close()


def test_composed_scene_moves_by_keyboard_and_travels_in_the_link(visit):
    page = visit.open()
    page.locator(".pl-make").click()
    page.wait_for_selector(".pl-mini-object")
    before = page.url
    page.locator(".pl-mini-object").last.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("location.search.includes('img=sc:')")
    assert page.url != before
    page.locator(".pl-compose-search").fill("rocket")
    page.locator(".pl-kind").first.click()
    page.wait_for_function("location.search.includes('rocket')")
    picture = page.locator(".pl-photo").get_attribute("src")
    page.reload()
    page.wait_for_selector(".pl[data-state=ready]")
    assert page.locator(".pl-photo").get_attribute("src") == picture
    assert page.locator(".pl-notice").is_hidden()
    assert visit.errors == []


def test_bad_files_get_one_sentence_and_the_app_goes_on(visit, tmp_path, photo):
    page = visit.open()
    fake = tmp_path / "notes.png"
    fake.write_text("not a picture")
    page.locator(".pl-file").set_input_files(fake)
    page.wait_for_selector(".pl-notice[data-tone=problem]:not([hidden])")
    assert "picture" in page.locator(".pl-notice-text").inner_text()
    assert page.locator(".pl[data-state=ready]").count() == 1
    upload(page, photo)
    assert page.locator(".pl-notice").is_hidden()
    dot = tmp_path / "dot.png"
    Image.new("RGB", (1, 1), (9, 200, 30)).save(dot)
    first = page.locator(".pl-photo").get_attribute("src")
    page.locator(".pl-file").set_input_files(dot)
    page.wait_for_function("old => document.querySelector('.pl-photo').src !== old", arg=first)
    assert visit.errors == []


def test_two_visitors_do_not_mix(running, url, photo):
    one, two = Visit(running, url), Visit(running, url)
    first, second = one.open("?v=1&img=ex:bus"), two.open("?v=1&img=ex:camel")
    upload(first, photo)
    for patch in (5, 50, 100):
        click_patch(first, patch)
        click_patch(second, patch + 1)
        assert query(first)["p"] == str(patch)
        assert query(second)["p"] == str(patch + 1)
    assert query(second)["img"] == "ex:camel"
    assert second.locator(".pl-photo").get_attribute("alt") != "Your picture"
    one.close()
    two.close()


@pytest.mark.parametrize("dark", [False, True])
def test_phone_has_no_sideways_scroll_and_large_targets(running, url, dark):
    one = Visit(
        running,
        url,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        color_scheme="dark" if dark else "light",
    )
    page = one.open()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator(".pl-grid").bounding_box()
    assert box["width"] / 12 >= 24
    page.locator(".pl-grid").tap(position={"x": box["width"] * 0.8, "y": box["height"] * 0.2})
    assert title(page) == "One patch"
    page.locator(".pl-make").tap()
    page.wait_for_selector(".pl-mini-object")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".pl-open").first.tap()
    page.wait_for_selector(".pl-card .pl-exemplar img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert one.errors == []
    one.close()


def test_about_names_papers_and_licences(visit):
    page = visit.open()
    page.get_by_role("tab", name="About").click()
    text = page.locator(".pl-about").inner_text()
    for word in ("ICLR 2025", "NeurIPS 2025", "Apache", "CC BY 4.0", "MIT"):
        assert word in text
    assert visit.errors == []


def test_http_endpoint(url, photo, tmp_path):
    client = client_of(url)
    try:
        rows = client.predict(handle_file(str(photo)), api_name="/concepts")
        assert 0 < len(rows) <= 64
        assert set(rows[0]) == {"latent", "name", "activation", "mean", "frequency"}
        activations = [row["activation"] for row in rows]
        assert activations == sorted(activations, reverse=True)
        public = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
        assert list(public) == ["/concepts", "/search"]
        fake = tmp_path / "notes.png"
        fake.write_text("not a picture")
        with pytest.raises(AppError, match="picture"):
            client.predict(handle_file(str(fake)), api_name="/concepts")
    finally:
        client.close()


@pytest.mark.parametrize(
    "path",
    ["/etc/hostname", "http://example.com/a.png", "file:///etc/hostname", "../app.py", "app.py"],
)
def test_http_endpoint_takes_no_server_paths_and_no_addresses(url, path):
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
    refused = httpx.post(f"{url}gradio_api/call/concepts", json={"data": data}, timeout=PATIENCE_S)
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("Send the picture itself")
    assert "latent" not in refused.text
