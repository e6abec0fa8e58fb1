"""What lies over pictures: tints, exemplars at large, the opening view, and that nothing jumps."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from sae.ui.static_files import script_address
from tests.browser.concepts_page import query
from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")

DRAW = """async ([address, map, columns, look, picture]) => {
  const { drawOverlay } = await import(new URL(address, document.baseURI));
  const canvas = Object.assign(document.createElement("canvas"), { width: 240, height: 240 });
  const context = canvas.getContext("2d");
  if (picture) {
    const image = Object.assign(new Image(), { src: picture });
    await image.decode();
    context.drawImage(image, 0, 0, 240, 240);
  }
  const grid = { rows: map.length / columns, columns };
  drawOverlay(context, map, grid, { opacity: 1, area: [0, 0, 240, 240], outline: "", ...look });
  return canvas.toDataURL("image/png").split(",")[1];
}"""


def drawn(page, amounts: np.ndarray, picture: str = "", **look: object) -> np.ndarray:
    """What the overlay of `amounts` (rows, columns) paints on 240 × 240 pixels, RGBA."""
    asked = [
        script_address("overlay.js"),
        amounts.ravel().tolist(),
        amounts.shape[1],
        look,
        picture,
    ]
    data = page.evaluate(DRAW, asked)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")).astype(int)


def middles(pixels: np.ndarray, n: int) -> np.ndarray:
    """The pixels in the middle of n × n patches."""
    side = len(pixels) // n
    return pixels[side // 2 :: side, side // 2 :: side]


def test_a_tint_is_as_strong_as_the_patch_fires_and_nothing_where_it_does_not(visit):
    page = visit.open()
    ramp = np.linspace(0, 2, 36).reshape(6, 6)
    pixels = drawn(page, ramp, top=2)
    alpha = middles(pixels, 6)[..., 3]
    assert np.abs(alpha - 255 * ramp / 2).max() <= 2
    assert np.abs(middles(drawn(page, ramp, top=2, opacity=0.5), 6)[..., 3] - alpha / 2).max() <= 2
    alone = np.zeros((6, 6))
    alone[2, 3], alone[4, 1] = 1, 0.02
    pixels = drawn(page, alone, top=1)
    silent = np.kron(alone == 0, np.ones((40, 40))).astype(bool)
    assert not pixels[silent].any()
    assert pixels[100, 140, 3] == 255
    assert 0 < pixels[180, 60, 3] < 10
    own = np.kron(alone, np.ones((40, 40)))
    assert (pixels[..., 3] <= 255 * own + 1).all()


def test_a_picture_keeps_its_pixels_where_a_concept_is_silent_and_its_shape_where_not(visit, photo):
    page = visit.open()
    picture = "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()
    plain = drawn(page, np.zeros((6, 6)), picture, top=1)
    amounts = np.zeros((6, 6))
    amounts[1:5, 1:5] = np.linspace(0.1, 1, 16).reshape(4, 4)
    for tint in (0, 1, 2):
        seen = drawn(page, amounts, picture, top=1, opacity=0.75, tint=tint, outline="on-picture")
        silent = np.kron(amounts == 0, np.ones((40, 40))).astype(bool)
        assert (seen[silent] == plain[silent]).all()
        inside = ~silent
        before, after = (one[inside][:, :3].mean(-1) for one in (plain, seen))
        assert np.corrcoef(before, after)[0, 1] > 0.3, "the picture below is lost"
        far = np.abs(middles(seen, 6) - middles(plain, 6)).sum(-1)[1:5, 1:5].ravel()
        assert far[-1] > far[0] + 60


def colours_seen(name: str) -> dict[str, np.ndarray]:
    """An sRGB colour as eyes of each kind see it (Machado et al. 2009, severity 1), CIELAB."""
    kinds = {
        "usual": np.eye(3),
        "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        "deutan": [[0.3673, 0.8606, -0.2279], [0.2801, 0.6726, 0.0473], [-0.0118, 0.0429, 0.9689]],
        "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    }
    rgb = np.array([int(name[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    lab = {}
    for kind, matrix in kinds.items():
        xyz = np.array(to_xyz) @ np.clip(np.array(matrix) @ linear, 0, 1) / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab[kind] = np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
    return lab


def test_three_tints_differ_for_every_kind_of_eye_in_light_and_dark(running, url):
    found = []
    for scheme in ("light", "dark"):
        one = Visit(running, url, color_scheme=scheme)
        page = one.open()
        found.append(
            page.evaluate(
                "async (address) => { const { tintColour } ="
                " await import(new URL(address, document.baseURI)); return [0, 1, 2].map(tintColour); }",
                script_address("overlay.js"),
            )
        )
        one.close()
    assert found[0] == found[1]
    seen = [colours_seen(name) for name in found[0]]
    for kind in seen[0]:
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert np.linalg.norm(seen[first][kind] - seen[second][kind]) > 40, kind


def test_the_opacity_is_remembered_and_in_the_link(visit):
    page = visit.open("?v=1&img=ex:bus")
    page.locator("#concepts .pl-opacity input").fill("40")
    assert query(page)["op"] == "40"
    page.goto(visit.url)
    page.wait_for_selector(".pl[data-state=ready]")
    assert page.locator("#concepts .pl-opacity input").input_value() == "40"
    page.goto(f"{visit.url}?v=1&op=90")
    page.wait_for_selector(".pl[data-state=ready]")
    assert page.locator("#concepts .pl-opacity input").input_value() == "90"
    for wrong in ("101", "-1", "1e3", "x"):
        page.goto(f"{visit.url}?v=1&op={wrong}")
        page.wait_for_selector(".pl[data-state=ready]")
        assert page.locator("#concepts .pl-opacity input").input_value() == "40"
    assert visit.errors == []


def viewer_map(page) -> int:
    """How many pixels of the large picture are tinted; -1 where the map is not shown."""
    return page.evaluate(
        "() => { const map = document.querySelector('.pl-viewer canvas'); if (map.hidden) return -1;"
        " return map.getContext('2d').getImageData(0, 0, map.width, map.height).data"
        ".filter((_, i) => i % 4 === 3).filter(Boolean).length; }"
    )


def test_an_exemplar_opens_large_by_key_and_arrows_go_on_to_the_next(visit):
    page = visit.open("?v=1&img=ex:bus")
    page.locator(".pl-open").first.click()
    page.wait_for_selector(".pl-card-body .pl-exemplar img")
    opened = page.locator(".pl-exemplar-row").first.locator(".pl-exemplar")
    n = opened.count()
    opened.first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".pl-viewer[open]")
    words = page.locator(".pl-viewer-words")
    large = page.locator(".pl-viewer-frame").bounding_box()
    assert large["width"] > 3 * opened.first.bounding_box()["width"]
    for step in range(1, 7):
        page.keyboard.press("ArrowRight")
        assert words.inner_text().startswith(f"{step % n + 1} of {n}")
    page.keyboard.press("ArrowLeft")
    at = (6 - 1) % n
    assert words.inner_text().startswith(f"{at + 1} of {n}")
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('.pl-viewer')"
        )
    assert viewer_map(page) > 0
    page.locator(".pl-viewer-mask").uncheck()
    assert viewer_map(page) == -1
    page.keyboard.press("ArrowRight")
    assert viewer_map(page) == -1
    page.locator(".pl-viewer-mask").check()
    assert viewer_map(page) > 0
    page.keyboard.press("Escape")
    assert page.locator(".pl-viewer[open]").count() == 0
    assert page.locator(".pl-card[open]").count() == 1
    assert opened.nth((at + 1) % n).evaluate("node => node === document.activeElement")
    assert visit.errors == []


def test_an_exemplar_is_taken_to_concepts_with_its_concept_and_the_link_keeps_it(visit):
    page = visit.open("?v=1&img=ex:bus")
    page.locator(".pl-open").first.click()
    page.wait_for_selector(".pl-card-body .pl-exemplar img")
    latent = query(page)["card"]
    label = page.locator(".pl-exemplar img").first.get_attribute("alt")
    page.locator(".pl-exemplar").first.click()
    page.get_by_role("button", name="Open in Concepts").click()
    page.wait_for_function("location.search.includes('img=ix:')")
    assert page.locator(".pl-photo").get_attribute("alt") == label
    assert page.locator("dialog[open]").count() == 0
    said = query(page)
    assert said["img"].startswith("ix:")
    assert said["z"] == latent
    assert "card" not in said
    assert page.locator(".pl-concept[aria-pressed=true]").count() == 1
    page.reload()
    page.wait_for_selector(".pl[data-state=ready]")
    assert page.locator(".pl-photo").get_attribute("alt") == label
    assert query(page) == said
    assert visit.errors == []


def test_pictures_that_are_still_to_come_show_nothing_broken(visit):
    page = visit.page
    page.route("**/component_server*", lambda _: None)  # no icon, no card ever comes
    page.goto(f"{visit.url}?v=1&img=ex:bus")
    page.wait_for_selector(".pl[data-state=ready]")
    images = page.locator(".pl img")
    assert page.locator(".pl-icon").count() > 5
    for image in images.all():
        assert image.get_attribute("src").startswith("data:image/")
        assert image.get_attribute("alt") is not None
        assert image.evaluate("node => node.complete && node.naturalWidth > 0")
    first = page.locator(".pl-icon").first
    assert first.bounding_box()["width"] == first.bounding_box()["height"] > 30
