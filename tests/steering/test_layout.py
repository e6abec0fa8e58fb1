"""Where tokens lie in the picture, against arithmetic done by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from sae.backbones.vlm import VisionLanguage
from sae.backbones.vlm_layout import position_picture, read_positions
from sae.steering import Steerer
from tests.steering.parts import random_sae
from tests.steering.tiny_vlms import tiny_vlm

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def layout(name: str, size: tuple[int, int]):
    tiny = tiny_vlm(name)
    vlm = VisionLanguage(tiny.model, tiny.processor)
    kept = vlm.capture(vlm.inputs(Image.new("RGB", size, "gray"), tiny.prompt), vlm.reads[-1])
    return vlm.layout(size, kept)


def grid(columns: int, rows: int, box=(0.0, 0.0, 1.0, 1.0)) -> torch.Tensor:
    x = box[0] + (np.arange(columns) + 0.5) / columns * (box[2] - box[0])
    y = box[1] + (np.arange(rows) + 0.5) / rows * (box[3] - box[1])
    return torch.tensor(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2), dtype=torch.float32)


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).abs().max() < 0.03)


def test_a_centre_crop_leaves_the_sides_out():
    found = layout("llava", (96, 64))
    assert close(found.centres[0], grid(4, 4, (1 / 6, 0, 5 / 6, 1)))
    assert (found.patch_grid, found.n_prefix, found.has_cls) == ((4, 4), 1, True)


def test_a_region_that_is_cropped_away_is_refused():
    found = layout("llava", (96, 64))
    with pytest.raises(ValueError, match="does not see"):
        found.tokens_in_box((0, 0, 0.1, 1))
    at_the_edge = found.tokens_in_box((0.1, 0.1, 0.18, 0.15))
    assert at_the_edge.nonzero().tolist() == [[0, 1]]


def test_a_squash_shows_all():
    found = layout("paligemma", (96, 64))
    assert close(found.centres[0], grid(4, 4))
    assert found.n_prefix == 0


@pytest.mark.parametrize(("name", "overview"), [("llava_onevision", 0), ("idefics3", 4)])
def test_tiles_show_quarters_and_the_overview_all(name, overview):
    found = layout(name, (64, 64))
    assert found.overview == overview
    tiles = [row for row in range(5) if row != overview]
    corners = [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)]
    assert close(found.centres[overview], grid(4, 4))
    for row, box in zip(tiles, corners, strict=True):
        assert close(found.centres[row], grid(4, 4, box))
    chosen = found.tokens_of_patches([0])
    assert chosen.sum(1).tolist() == [int(r == overview) + 4 * int(r == tiles[0]) for r in range(5)]


def test_padding_belongs_to_no_region():
    found = layout("llava_onevision", (128, 32))  # resized into 64 × 64 with bars
    assert found.centres.isnan().any()
    assert not (found.tokens_in_box((0, 0, 1, 1)) & found.centres.isnan().any(-1)).any()


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_packed_patches_are_told_apart_whatever_their_order(name):
    found = layout(name, (96, 64))
    rows, columns = found.patch_grid
    assert (rows, columns) == (6, 8)
    assert close(found.centres[0][found.order], grid(columns, rows))
    assert sorted(found.order.tolist()) == list(range(48))


def test_windows_of_qwen_2_5_are_where_its_tokens_come_from():
    """A bright corner changes the tokens of that corner, before any attention mixes them."""
    tiny = tiny_vlm("qwen2_5_vl")
    steerer = Steerer(tiny.model, tiny.processor, random_sae(32, 2))
    seen = []
    hook = steerer.vlm.layers[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    dark = Image.new("RGB", (64, 48), "gray")
    lit = dark.copy()
    lit.paste((255, 255, 255), (48, 32, 64, 48))
    try:
        prepared = [steerer.prepare(image, tiny.prompt) for image in (dark, lit)]
    finally:
        hook.remove()
    changed = (seen[0] - seen[1]).abs().amax(-1) > 1e-4
    wanted = prepared[0].activations.layout().tokens_in_box((0.75, 0.667, 1, 1))[0]
    assert torch.equal(changed, wanted)


def test_positions_are_read_back():
    picture = np.asarray(position_picture((50, 20)), dtype=np.float32) / 255
    colours = torch.from_numpy(picture.reshape(1, -1, 3) * 2 - 1)
    found = read_positions(colours, [0.5] * 3, [0.5] * 3)
    assert close(found[0], grid(50, 20))
    assert read_positions(torch.zeros(1, 1, 3) - 1, [0.5] * 3, [0.5] * 3).isnan().all()
