"""Pictures of every state of the page into screenshots/: python tests/browser/screenshots.py [URL]

Without a URL it starts app.py on the emoji world, then as `make demo` does; a URL is of the emoji world.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from playwright.sync_api import Browser, Page

from sae.terminal import command
from tests.browser.serving import Visit, browser, chromium, served

FOLDER = Path(__file__).resolve().parents[2] / "screenshots"
DESK = {"viewport": {"width": 1440, "height": 1000}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


def open_card(page: Page) -> None:
    page.locator(".pl-open").first.click()
    page.wait_for_selector(".pl-card .pl-card-body")


def compose(page: Page) -> None:
    page.locator(".pl-make").click()
    page.wait_for_selector(".pl-kind")


def whole(page: Page) -> None:
    page.keyboard.press("Escape")


def region(page: Page) -> None:
    box = page.locator(".pl-grid").bounding_box()
    side = box["width"] / 12
    page.mouse.move(box["x"] + 2.5 * side, box["y"] + 4.5 * side)
    page.mouse.down()
    page.mouse.move(box["x"] + 6.5 * side, box["y"] + 8.5 * side, steps=5)
    page.mouse.up()


def about(page: Page) -> None:
    page.get_by_role("tab", name="About").click()
    page.wait_for_selector(".pl-about")


def latents(page: Page) -> None:
    page.wait_for_selector(".pl-latents[data-state=ready] .pl-table-row")


def latents_search(page: Page) -> None:
    latents(page)
    page.locator(".pl-search input").press_sequentially("an animal in water")
    page.wait_for_function(
        "document.querySelector('.pl-latents .pl-subtitle').textContent.includes('meaning')"
    )


def steer(page: Page) -> None:
    page.wait_for_selector(".pl-next li")
    page.locator(".pl-ladder-go").click()
    page.wait_for_selector(".pl-rungs")


def compare(page: Page) -> None:
    page.wait_for_selector(".pl-fall-sum")


def nothing(_page: Page) -> None:
    """The page as it opens."""


Shot = tuple[str, dict, str, Callable[[Page], None]]
SHOTS: tuple[Shot, ...] = (
    ("concepts", DESK, "", nothing),
    ("concepts-dark", {**DESK, "color_scheme": "dark"}, "", nothing),
    ("whole-picture", DESK, "?v=1&img=ex:sailboat", whole),
    ("region", DESK, "?v=1&img=ex:pizza", region),
    ("card", DESK, "", open_card),
    ("card-dark", {**DESK, "color_scheme": "dark"}, "", open_card),
    ("compose", DESK, "", compose),
    ("stale-link", DESK, "?v=1&img=ex:gone&z=1000000000", nothing),
    ("about", DESK, "", about),
    ("latents", DESK, "?v=1&tab=latents", latents),
    ("latents-dark", {**DESK, "color_scheme": "dark"}, "?v=1&tab=latents", latents_search),
    ("steer", DESK, "?v=1&tab=steer&steer=12*1.5", steer),
    ("steer-dark", {**DESK, "color_scheme": "dark"}, "?v=1&tab=steer&steer=12*1.5", steer),
    ("compare", DESK, "?v=1&tab=compare", compare),
    ("compare-dark", {**DESK, "color_scheme": "dark"}, "?v=1&tab=compare", compare),
    ("phone-latents", PHONE, "?v=1&tab=latents", latents),
    ("phone-steer", PHONE, "?v=1&tab=steer&steer=12*1.5", steer),
    ("phone-compare", PHONE, "?v=1&tab=compare", compare),
    ("phone", PHONE, "", nothing),
    ("phone-dark", {**PHONE, "color_scheme": "dark"}, "", nothing),
    ("phone-card", PHONE, "", open_card),
    ("phone-compose", PHONE, "", compose),
)
AS_IT_OPENS = (
    ("opens", DESK, "", nothing),
    ("opens-dark", {**DESK, "color_scheme": "dark"}, "", nothing),
    ("opens-card", DESK, "", open_card),
    ("opens-about", DESK, "", about),
    ("opens-latents", DESK, "?v=1&tab=latents", latents),
    ("phone-opens", PHONE, "", nothing),
)
"""The page of `make demo`, with every lens that comes along."""


def take(running: Browser, url: str, shots: Sequence[Shot] = SHOTS) -> None:
    """Every picture of `shots`, named after its state."""
    FOLDER.mkdir(exist_ok=True)
    for name, options, query, act in shots:
        visit = Visit(running, url, **options)
        page = visit.open(query) if "tab=" not in query else visit.page
        if "tab=" in query:
            page.goto(visit.url + query)
        act(page)
        page.wait_for_timeout(900)
        whole_page = (
            "viewport" in options and options["viewport"]["width"] < 500 and "card" not in name
        )
        page.screenshot(path=FOLDER / f"{name}.png", full_page=whole_page)
        sys.stdout.write(f"screenshots/{name}.png\n")
        visit.close()


@command
def main(argv: list[str]) -> None:
    """Take them all."""
    if chromium() is None:
        raise OSError("no Chromium here: install one, or name it in PATCHLENS_CHROMIUM")
    with browser() as running:
        if argv:
            take(running, argv[0].rstrip("/") + "/")
            return
        with served("app.py", "--port", "{port}", "--lens", "emoji") as url:
            take(running, url)
        with served("app.py", "--port", "{port}") as url:
            take(running, url, AS_IT_OPENS)


if __name__ == "__main__":
    sys.exit(main())
