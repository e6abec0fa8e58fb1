"""A visitor's own pictures, in a real browser: kept there and nowhere else, on every tab, until forgotten."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.concepts_page import click_patch, query, title, upload
from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
TILES = "#concepts .pl-own-picture"
STORED = """() => new Promise((done) => {
  const asked = indexedDB.open('patchlens', 1);
  asked.onsuccess = () => {
    const all = asked.result.transaction('pictures').objectStore('pictures').getAll();
    all.onsuccess = () => { asked.result.close(); done(all.result.map((one) => one.name)); };
  };
})"""


def picture(folder: Path, name: str, colour: tuple[int, int, int]) -> Path:
    """A picture of one colour with a dark corner."""
    pixels = np.full((120, 160, 3), colour, np.uint8)
    pixels[:40, :50] = 20
    Image.fromarray(pixels).save(folder / name)
    return folder / name


@pytest.fixture
def two(tmp_path) -> list[Path]:
    return [
        picture(tmp_path, "red.png", (220, 40, 30)),
        picture(tmp_path, "sea.png", (20, 90, 200)),
    ]


def shown_upload(page, path: Path) -> str:
    """Upload a picture and wait until it is shown and a tile; what links call it."""
    upload(page, path)
    page.wait_for_selector(f"{TILES}[title='{path.name}'][aria-pressed=true]")
    return query(page)["img"]


def settle(page) -> None:
    page.wait_for_selector("#concepts .pl[data-state=ready]")


def test_an_upload_is_a_tile_that_outlives_an_example_a_tab_and_a_reload(visit, photo):
    page = visit.open()
    link = shown_upload(page, photo)
    assert link.startswith("own:")
    source = page.locator("#concepts .pl-photo").get_attribute("src")
    click_patch(page, 66)
    page.locator("#concepts .pl-concept").first.click()
    chosen = page.url
    rows = page.locator("#concepts .pl-row:not([hidden]) .pl-name").all_inner_texts()

    page.reload()
    page.wait_for_function(
        "src => document.querySelector('#concepts .pl-photo')?.src === src", arg=source
    )
    assert page.url == chosen
    assert title(page) == "One patch"
    assert page.locator("#concepts .pl-row:not([hidden]) .pl-name").all_inner_texts() == rows
    assert page.locator(".pl-misfit").count() == 0

    page.locator("#concepts .pl-example[data-name=bus]").click()
    page.wait_for_function("location.search.includes('img=ex:bus')")
    assert page.locator(f"{TILES}[aria-pressed=true]").count() == 0
    page.get_by_role("tab", name="About").click()
    page.get_by_role("tab", name="Concepts").click()
    page.locator(TILES).click()
    page.wait_for_function(
        "src => document.querySelector('#concepts .pl-photo')?.src === src", arg=source
    )
    assert query(page)["img"] == link
    page.go_back(wait_until="commit")
    page.wait_for_function(
        "document.querySelector('#tabs button[aria-selected=true]').textContent.includes('Concepts')"
    )
    assert visit.errors == []


def test_back_walks_between_own_pictures_and_examples(visit, two):
    page = visit.open("?v=1&img=ex:camel")
    first = shown_upload(page, two[0])
    sources = [page.locator("#concepts .pl-photo").get_attribute("src")]
    second = shown_upload(page, two[1])
    sources.append(page.locator("#concepts .pl-photo").get_attribute("src"))
    assert first != second
    page.go_back(wait_until="commit")
    page.wait_for_function(
        "src => document.querySelector('#concepts .pl-photo')?.src === src", arg=sources[0]
    )
    assert query(page)["img"] == first
    page.go_back(wait_until="commit")
    page.wait_for_selector("#concepts .pl-example[data-name=camel][aria-pressed=true]")
    for source in sources:
        page.go_forward(wait_until="commit")
        page.wait_for_function(
            "src => document.querySelector('#concepts .pl-photo')?.src === src", arg=source
        )
    assert visit.errors == []


def test_a_second_visit_has_them_and_another_browser_does_not(visit, running, url, two):
    page = visit.open()
    link = shown_upload(page, two[0])
    address = page.url
    page.close()
    again = visit.context.new_page()
    again.goto(url)
    again.wait_for_selector(f"{TILES}[title='red.png']")
    again.goto(address)
    again.wait_for_selector("#concepts .pl-photo[alt='Your picture']")
    other = Visit(running, url)
    stranger = other.open(address.removeprefix(url))
    stranger.wait_for_selector(".pl-misfit:not([hidden])")
    assert (
        "its picture is not kept in this browser" in stranger.locator(".pl-misfit p").inner_text()
    )
    assert stranger.locator("#concepts .pl-photo").get_attribute("alt") != "Your picture"
    assert stranger.locator(TILES).count() == 0
    assert link not in stranger.url
    assert other.errors == []
    other.close()


def test_the_same_picture_is_one_tile_and_several_at_once_are_several(visit, two, photo):
    page = visit.open()
    link = shown_upload(page, two[0])
    page.locator("#concepts .pl-example[data-name=bus]").click()
    page.wait_for_function("location.search.includes('img=ex:bus')")
    assert shown_upload(page, two[0]) == link
    assert page.locator(TILES).count() == 1
    page.locator(".pl-file").set_input_files([photo, two[1]])
    page.wait_for_function(f"document.querySelectorAll('{TILES}').length === 3")
    page.wait_for_selector(f"{TILES}[title='photo.jpg'][aria-pressed=true]")
    assert sorted(page.evaluate(STORED)) == ["photo.jpg", "red.png", "sea.png"]
    assert visit.errors == []


def test_one_is_forgotten_and_then_all_and_nothing_of_them_stays_in_the_browser(visit, two, photo):
    page = visit.open()
    for path in (*two, photo):
        shown_upload(page, path)
    page.locator("#concepts .pl-own-tile").nth(1).hover()
    page.get_by_role("button", name="Forget your picture sea.png").first.click()
    page.wait_for_function(f"document.querySelectorAll('{TILES}').length === 2")
    assert page.evaluate("!!document.activeElement.closest('.pl-own-tile')")
    page.wait_for_function(f"async () => (await ({STORED})()).length === 2")
    page.locator("#concepts .pl-forget-all").click()
    assert page.locator(TILES).count() == 2
    page.locator("#concepts .pl-forget-all").click()
    page.wait_for_function(f"async () => (await ({STORED})()).length === 0")
    page.reload()
    page.wait_for_selector(".pl-misfit:not([hidden])")
    settle(page)
    assert page.locator(TILES).count() == 0
    assert page.locator("#concepts .pl-example[aria-pressed=true]").count() == 1
    assert visit.errors == []


def test_what_is_no_picture_never_becomes_a_tile(visit, tmp_path):
    page = visit.open()
    fake = tmp_path / "notes.png"
    fake.write_text("not a picture")
    page.locator(".pl-file").set_input_files(fake)
    page.wait_for_selector("#concepts .pl-notice[data-tone=problem]:not([hidden])")
    assert page.locator(TILES).count() == 0
    assert page.evaluate(STORED) == []


def test_a_browser_that_keeps_nothing_says_so_and_works_until_it_is_closed(visit, two):
    visit.page.add_init_script(
        "Object.defineProperty(window, 'indexedDB', { get() { throw new Error('no'); } })"
    )
    page = visit.open()
    shown_upload(page, two[0])
    page.wait_for_selector("#concepts .pl-notice:not([hidden])")
    assert "keeps no pictures" in page.locator("#concepts .pl-notice-text").inner_text()
    page.locator("#concepts .pl-example[data-name=bus]").click()
    page.wait_for_function("location.search.includes('img=ex:bus')")
    page.go_back(wait_until="commit")
    page.wait_for_function("document.querySelector('.pl-photo').alt === 'Your picture'")
    page.reload()
    page.wait_for_selector(".pl-misfit:not([hidden])")
    assert visit.errors == []


def test_what_this_browser_has_under_our_name_is_not_believed(visit, two):
    page = visit.open()
    shown_upload(page, two[0])
    page.evaluate(
        """() => new Promise((done) => {
          const asked = indexedDB.open('patchlens', 1);
          asked.onsuccess = () => {
            const store = asked.result.transaction('pictures', 'readwrite').objectStore('pictures');
            const file = new Blob(['x']);
            store.put({ id: 'a', name: '<img src=x>', file, thumb: 'https://example.com/a', at: 9e15 });
            store.put({ id: '../b', name: 'b', file, thumb: 'data:image/png;base64,', at: 9e15 });
            store.put({ id: 'c', name: 7, file: 'file:///etc/passwd', thumb: 'javascript:1', at: 9e15 });
            store.put({ id: 'd' }).onsuccess = () => { asked.result.close(); done(); };
          };
        })"""
    )
    page.reload()
    page.wait_for_selector(f"{TILES}[title='red.png'][aria-pressed=true]")
    assert page.locator(TILES).count() == 1
    assert (visit.errors, visit.foreign) == ([], [])


def test_many_are_bounded_and_the_oldest_go(visit, two):
    page = visit.open()
    shown_upload(page, two[0])
    count = page.evaluate(
        """async (address) => {
          const { own } = await import(new URL(address, document.baseURI));
          const { thumb } = own.list[0];
          for (let i = 0; i < 40; i++) await own.add(`n${i}`, new File([`${i}`], `n${i}.png`), thumb);
          const many = own.list.length;
          await own.add('big1', new File([new Uint8Array(60 * 2 ** 20)], 'big1.png'), thumb);
          await own.add('big2', new File([new Uint8Array(60 * 2 ** 20)], 'big2.png'), thumb);
          return [many, own.list.map((one) => one.id).filter((id) => id.startsWith('big'))];
        }""",
        page.evaluate(
            "document.querySelector('link[rel=modulepreload][href*=own_pictures]').getAttribute('href')"
        ),
    )
    assert count == [24, ["big2"]]
    page.wait_for_function(f"async () => (await ({STORED})()).length <= 24")
    assert "red.png" not in page.evaluate(STORED)


def test_a_picture_that_the_server_has_lost_is_sent_again(visit, two):
    page = visit.open()
    shown_upload(page, two[0])
    page.evaluate(
        """async (address) => {
          const { own } = await import(new URL(address, document.baseURI));
          for (const data of own.data.values()) data.path = data.path.replace(/[^/]*$/, 'gone.png');
        }""",
        page.evaluate(
            "document.querySelector('link[rel=modulepreload][href*=own_pictures]').getAttribute('href')"
        ),
    )
    page.locator("#concepts .pl-example[data-name=bus]").click()
    page.wait_for_function("location.search.includes('img=ex:bus')")
    page.locator(TILES).click()
    page.wait_for_function("document.querySelector('.pl-photo').alt === 'Your picture'")
    assert page.locator("#concepts .pl-notice").is_hidden()
    assert visit.errors == []


@pytest.mark.parametrize(
    "image",
    [
        "own:zzzz",
        "own:../../etc/passwd",
        "own:<b>",
        "own:",
        "own:/etc/hostname",
        "own:http://example.com/a",
    ],
)
def test_links_to_own_pictures_follow_no_path_and_no_address(visit, image):
    page = visit.open(f"?v=1&img={image}&z=3&p=5")
    page.wait_for_selector(".pl-misfit:not([hidden])")
    assert page.locator("#concepts .pl-example[aria-pressed=true]").count() == 1
    assert not [
        address for address in visit.requests if "passwd" in address and "upload" in address
    ]
    assert query(page)["img"].startswith("ex:")
    assert visit.errors == []


def test_tiles_on_a_phone_do_not_widen_the_page_and_can_be_forgotten(running, url, two):
    phone = Visit(
        running, url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = phone.open()
    for path in two:
        shown_upload(page, path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#concepts .pl-own-forget").first.bounding_box()
    assert min(box["width"], box["height"]) >= 24
    page.locator("#concepts .pl-own-forget").first.tap()
    page.wait_for_function(f"document.querySelectorAll('{TILES}').length === 1")
    assert phone.errors == []
    phone.close()
