"""Nothing jumps: the layout shift of every tab of the bundled page, through load and a first click.

What is measured is Chromium's own: the sum over shifts that no click, key or tap explains. The picture that a
phone keeps in view floats in a corner by itself when it is scrolled past; that moves nothing else.
"""

import pytest

from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")

MOST = 0.05
NOTE = """window.shifts = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    const floats = one.sources.every(({ node }) => node?.closest?.(".pl-place"));
    if (!one.hadRecentInput && !(floats && one.sources.length)) shifts.push([one.value,
      ...one.sources.map(({ node }) => node && (node.className || node.nodeName))]);
  }
}).observe({ type: "layout-shift", buffered: true });"""
TABS = {
    "concepts": ("#concepts .pl-icon.pl-has", "#concepts .pl-concept"),
    "latents": (".pl-latents[data-state=ready] .pl-table-row", ".pl-table-row"),
    "steer": (".pl-next li", ".pl-prompt-chip >> nth=1"),
    "compare": (".pl-fall-sum", ".pl-next-picture"),
    "about": (".pl-about", ".pl-about h2"),
}


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("tab", list(TABS))
def test_a_tab_keeps_still_while_it_loads_and_after_a_click(running, url, tab, width):
    one = Visit(running, url, viewport={"width": width, "height": 900})
    page = one.page
    page.add_init_script(NOTE)
    page.goto(url if tab == "concepts" else f"{url}?v=1&tab={tab}")
    ready, click = TABS[tab]
    page.wait_for_selector(ready)
    page.wait_for_timeout(1500)
    page.locator(click).first.click()
    page.wait_for_timeout(2500)
    shifts = page.evaluate("shifts")
    assert sum(shift[0] for shift in shifts) < MOST, shifts
    one.close()
