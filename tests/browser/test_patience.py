"""A busy server: the page asks again by itself, and says the place in the queue."""

from playwright.sync_api import Route

BUSY = {"status": 503, "headers": {"Retry-After": "1"}, "json": {"detail": "busy"}}


def test_what_a_busy_server_turns_away_is_asked_again_and_answered(visit, photo):
    page = visit.open()
    turned_away: list[str] = []

    def turn_away(route: Route) -> None:
        address = route.request.url.split("?")[0].rstrip("/")
        if address in turned_away:
            route.continue_()
        else:
            turned_away.append(address)
            route.fulfill(**BUSY)

    page.route("**/gradio_api/upload*", turn_away)
    page.route("**/gradio_api/queue/join*", turn_away)
    page.set_input_files(".pl-file", photo)
    page.wait_for_selector(".pl-crowded:not([hidden])")
    assert "asked again by itself" in page.inner_text(".pl-crowded")
    page.wait_for_selector("#concepts .pl-own-picture[aria-pressed=true]")
    page.wait_for_selector(".pl-crowded", state="hidden")
    assert [one.rsplit("/", 1)[-1] for one in turned_away] == ["upload", "join"]


def test_whoever_waits_long_is_told_the_place_in_the_queue(visit):
    page = visit.open()
    page.evaluate(
        """async () => {
          const { hear } = await import(
            [...document.querySelectorAll("link[rel=modulepreload]")]
              .map((link) => link.href).find((address) => address.endsWith("/patience.js")));
          hear({ msg: "estimation", event_id: "a", rank: 4, rank_eta: 7.6 });
        }"""
    )
    page.wait_for_selector(".pl-crowded:not([hidden])")
    assert page.inner_text(".pl-crowded") == (
        "Many questions are being answered: yours is number 5 in the queue, about 8 s."
    )
    page.evaluate(
        """async () => {
          const { hear } = await import(
            [...document.querySelectorAll("link[rel=modulepreload]")]
              .map((link) => link.href).find((address) => address.endsWith("/patience.js")));
          hear({ msg: "process_starts", event_id: "a" });
        }"""
    )
    page.wait_for_selector(".pl-crowded", state="hidden")


def test_use_via_api_finds_everything_it_asks_for(visit):
    page = visit.open()
    missing: list[str] = []
    page.on("response", lambda one: missing.append(one.url) if one.status >= 400 else None)
    with page.expect_response("**/monitoring/summary"):
        page.get_by_text("Use via API").click()
    page.wait_for_selector("text=/concepts/")
    assert missing == []
    assert visit.errors == []
