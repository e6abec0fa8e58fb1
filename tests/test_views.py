"""Codes, colours, pictures and rankings: what goes to the browser can be read back."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from sae.errors import ImageError
from sae.views.code import Code, pack, quantise, to_dense, unpack
from sae.views.colours import lookup_table, luminance
from sae.views.pictures import DISPLAY_MAX, DISPLAY_MIN, concept_icon, display_copy, thumbnail
from sae.views.ranking import leading, rank


def random_latents(
    n_places: int = 20, k: int = 5, d_sae: int = 90, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Sparse pairs with some padding, values descending."""
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.choice(d_sae, k, replace=False) for _ in range(n_places)])
    values = -np.sort(-rng.gamma(2, 1.5, (n_places, k)), axis=1)
    values[:, -1] = np.where(rng.random(n_places) < 0.4, 0, values[:, -1])
    indices[values == 0] = 0
    return values.astype(np.float32), indices


def dense_of(values: np.ndarray, indices: np.ndarray, d_sae: int) -> np.ndarray:
    dense = np.zeros((len(values), d_sae), np.float32)
    for place, latent in zip(*np.nonzero(values), strict=True):
        dense[place, indices[place, latent]] = values[place, latent]
    return dense


@pytest.mark.parametrize("seed", range(5))
def test_packed_code_comes_back_within_half_a_step(seed):
    values, indices = random_latents(seed=seed)
    dense = dense_of(values, indices, 90)
    packed = json.loads(json.dumps(pack(quantise(values, indices))))
    back = to_dense(unpack(packed), 90)
    assert np.abs(back - dense).max() <= dense.max() / 510 + 1e-6
    assert ((back > 0) == (dense > 0)).all()
    assert np.allclose(back.max(0), dense.max(0))


def test_tiny_values_do_not_vanish_beside_large_ones():
    code = quantise(np.array([[100.0], [0.001]]), np.array([[7], [7]]))
    assert code.value.tolist() == [255, 1]


def test_more_than_65536_latents_take_wide_slots():
    n = 2**16 + 3
    code = quantise(
        np.ones((n // 60 + 1, 60), np.float32), np.arange((n // 60 + 1) * 60).reshape(-1, 60)
    )
    assert code.slot.dtype == np.uint32
    assert np.array_equal(unpack(pack(code)).slot, code.slot)


def test_empty_code_is_a_code():
    code = quantise(np.zeros((4, 3), np.float32), np.zeros((4, 3), np.int64))
    assert to_dense(unpack(pack(code)), 10).sum() == 0
    assert len(rank(code, 4).latents) == 0


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        quantise(np.full((2, 2), np.nan), np.zeros((2, 2), np.int64))


@pytest.mark.parametrize("by", ["max", "mean"])
def test_ranking_equals_the_dense_one_and_leaves_the_summary_token_out(by):
    values, indices = random_latents()
    dense = dense_of(values, indices, 90)[:19]
    ranked = rank(quantise(values, indices), 19, by)
    assert set(ranked.latents) == set(np.flatnonzero(dense.max(0)))
    assert np.allclose(ranked.maximum, dense.max(0)[ranked.latents], atol=dense.max() / 500)
    assert np.allclose(ranked.mean, dense.mean(0)[ranked.latents], atol=dense.max() / 500)
    amounts = ranked.maximum if by == "max" else ranked.mean
    assert (np.diff(amounts) <= 0).all()


def test_colours_grow_in_luminance_and_stay_apart_for_colour_blind_eyes():
    table = lookup_table()
    assert table.shape == (256, 3)
    assert (np.diff(luminance(table)[::5]) > 0).all()
    steps = table[:: 255 // 5].astype(float) / 255
    deutan = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    protan = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
    for simulate in (deutan, protan):
        lab = to_lab(np.clip(steps**2.2 @ simulate.T, 0, 1))
        assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() >= 10


def to_lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear sRGB."""
    matrix = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ matrix.T / np.array([0.9505, 1, 1.089])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], 1
    )


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((96, 96), (DISPLAY_MIN, DISPLAY_MIN)),
        ((4000, 2000), (DISPLAY_MAX, 512)),
        ((1, 1), (576, 576)),
        ((800, 1), (800, 1)),
    ],
)
def test_display_copy_keeps_the_aspect(size, shown):
    uri, reported = display_copy(Image.new("RGB", size, (200, 30, 90)))
    assert uri.startswith("data:image/jpeg;base64,")
    assert reported == shown


def test_icon_is_cut_around_the_patch():
    image = Image.new("RGB", (96, 96), (0, 0, 0))
    image.paste((255, 255, 255), (80, 80, 96, 96))
    buffer = io.BytesIO()
    image.save(buffer, "webp", lossless=True)
    bright = Image.open(io.BytesIO(concept_icon(buffer.getvalue(), 143, (12, 12))))
    dark = Image.open(io.BytesIO(concept_icon(buffer.getvalue(), 0, (12, 12))))
    assert np.asarray(bright).mean() > 20 > np.asarray(dark).mean()


def encoded(kind, size=(40, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_a_picture_of_an_index_is_a_webp_and_starts_no_other_decoder(kind, monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *args, **_: started.append(args))
    monkeypatch.setattr("subprocess.check_call", lambda *args, **_: started.append(args))
    with pytest.raises(ImageError, match="no WebP, or is damaged; build the index again"):
        concept_icon(encoded(kind))
    assert not started


def test_a_picture_of_an_index_is_bounded_before_it_is_decoded(monkeypatch):
    declares_much = encoded("WEBP", (4000, 4000))
    assert len(declares_much) < 4000 * 4000 / 100
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="4000 x 4000 pixels"):
        concept_icon(declares_much)


def test_thumbnail_is_a_small_square():
    made = Image.open(io.BytesIO(thumbnail(Image.new("RGB", (300, 100)))))
    assert made.size == (144, 144)


def laid(columns: list[list[float]]) -> Code:
    """The code of latents given by what each fires in every patch."""
    values = np.array(columns, np.float32).T
    return quantise(values, np.tile(np.arange(len(columns)), (len(values), 1)))


def test_what_leads_adds_most_and_things_come_before_ground():
    ground = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    again = [0, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    thing = [0.9, 0.9, 0.9, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    small = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    faint = [0.3, 0.3, 0.3, 0.3, 0, 0, 0, 0, 0, 0, 0, 0]
    code = laid([ground, again, thing, small, faint])
    top = np.ones(5, np.float32)
    everyone, names = np.ones(5, bool), ["grass", "field", "cat", "hat", "shade"]
    assert leading(code, 12, top, [everyone], names) == [2, 3, 0]
    assert leading(code, 12, top, [everyone], ["grass", "field", "cat", "cat", ""]) == [2, 4, 0]
    assert leading(code, 12, top, [everyone & (np.arange(5) != 2)], names) == [3, 4, 0]
    sure = np.arange(5) == 1
    assert leading(code, 12, top, [sure, everyone], names) == [2, 3, 1]
    assert leading(code, 12, top, [~everyone], names) == []
    assert leading(laid([[0.0] * 12]), 12, np.ones(0, np.float32), [np.ones(0, bool)], []) == []


def test_a_share_of_its_own_maximum_leads_not_the_larger_number():
    loud, near = [20.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]
    code = laid([loud, near])
    top = np.array([50, 4.5], np.float32)
    assert leading(code, 4, top, [np.ones(2, bool)], ["a", "b"]) == [1, 0]
