"""Visitors' pictures: hostile ones end in one sentence, others' go on, and none stays on the disk."""

import io
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from sae.errors import ImageError
from sae.images import open_image
from sae.ui import uploads
from sae.ui.decoding import Decoder, check_parts
from sae.ui.uploads import AFTER_VISIT_S, KEPT_S, Uploads, keep, plain_name, sweep
from tests.hostile_pictures import HOSTILE, bmp_of_runs, encoded, gif_of_comments


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


@pytest.fixture(scope="module")
def decoder():
    made = Decoder()
    yield made
    made.close()


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, channels), dtype=np.uint8))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_far_too_many_parts_is_refused_before_it_is_decoded(name, monkeypatch):
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="far more parts than a picture has"):
        check_parts(HOSTILE[name], name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF", "AVIF"])
def test_every_usual_picture_passes_and_its_pixels_are_the_same(kind, decoder, tmp_path):
    register_heif_opener()
    options = {"progressive": True} if kind == "JPEG" else {}
    data = encoded(noise(300, 500), kind, **options)
    check_parts(data, "a")
    check_parts(encoded(noise(30, 50), kind, save_all=True) if kind == "GIF" else data, "a")
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert np.array_equal(np.asarray(decoder.open(path)), np.asarray(open_image(path)))


def test_parts_are_counted_in_what_is_cut_off_or_no_picture():
    rng = np.random.default_rng(0)
    for data in [*HOSTILE.values(), encoded(noise(30, 30), "JPEG"), encoded(noise(9, 9), "GIF")]:
        small = data[:3000]
        for end in (0, 1, 3, 10, 14, 500, 3000):
            check_parts(small[:end], "a")
            check_parts(small[:end] + rng.bytes(2000), "a")


def test_what_a_visitor_may_not_send_is_one_sentence(decoder, tmp_path):
    eps = tmp_path / "a.eps"
    eps.write_bytes(encoded(Image.new("RGB", (9, 9)), "EPS"))
    jp2 = tmp_path / "a.jp2"
    jp2.write_bytes(encoded(Image.new("RGB", (9, 9)), "JPEG2000"))
    for path in (eps, jp2):
        with pytest.raises(ImageError, match="use JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP or TIFF"):
            decoder.open(path)
    with pytest.raises(ImageError, match=r"There is no file none\.png\."):
        decoder.open(tmp_path / "none.png")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are a thing of POSIX")
def test_a_picture_beyond_the_limits_costs_its_worker_and_nothing_else(tmp_path):
    slow, large, usual = tmp_path / "slow.bmp", tmp_path / "large.png", tmp_path / "usual.png"
    slow.write_bytes(bmp_of_runs())
    Image.new("RGB", (8000, 7000)).save(large)
    noise(10, 10).save(usual)
    hasty, modest = Decoder(cpu_s=0), Decoder(memory_bytes=300 * 1024**2)
    for limited, path in ((hasty, slow), (modest, large)):
        with pytest.raises(ImageError, match="takes too long or too much memory"):
            limited.open(path)
        assert limited.open(usual).size == (10, 10)
        limited.close()


def test_uploads_lie_where_nobody_can_guess_and_are_found_by_their_path_only(folder):
    kept = Uploads()
    path = keep("../../my photo.png", io.BytesIO(encoded(noise(9, 9), "PNG")))
    assert Path(path).is_relative_to(folder)
    assert Path(path).name == "my photo.png"
    assert kept.open(path).size == (9, 9)
    for claimed in (None, 3, "", "my photo.png", "/etc/passwd", path + "\0", str(folder)):
        with pytest.raises(ImageError, match="did not arrive"):
            kept.open(claimed)
    kept.decoder.close()


@pytest.mark.usefixtures("folder")
def test_a_refused_picture_is_not_decoded_again(monkeypatch):
    kept = Uploads()
    first = keep("a.gif", io.BytesIO(gif_of_comments(5000)))
    again = keep("b.gif", io.BytesIO(gif_of_comments(5000)))
    with pytest.raises(ImageError, match="far more parts"):
        kept.open(first)
    monkeypatch.setattr(kept.decoder, "open", lambda _path: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="far more parts"):
        kept.open(again)
    kept.decoder.close()


def test_what_is_old_goes_whoever_wrote_it_and_whenever_the_server_started(folder):
    kept = Uploads()
    used = Path(keep("used.png", io.BytesIO(b"used")))
    old = Path(keep("old.png", io.BytesIO(b"old")))
    stray, link, empty = folder / "tmpabc", folder / "deep_links" / "state.json", folder / "x" / "y"
    link.parent.mkdir()
    empty.mkdir(parents=True)
    for path in (stray, link):
        path.write_bytes(b"")
    past = time.time() - KEPT_S - 10
    for path in (old, stray, link, empty, empty.parent):
        os.utime(path, (past, past))
    sweep()
    assert used.is_file()
    assert not any(path.exists() for path in (old, stray, link, empty))
    os.utime(used, (past, past))
    kept.identify(str(used))  # used again
    sweep()
    assert used.is_file()


@pytest.mark.parametrize(("name", "value"), [("MAX_FILES", 3), ("MAX_BYTES", 3500)])
def test_the_folder_is_bounded_by_number_and_bytes(name, value, folder, monkeypatch):
    paths = [Path(keep(f"{number}.png", io.BytesIO(bytes(1000)))) for number in range(4)]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, (time.time() - 10 - age,) * 2)
    monkeypatch.setattr(uploads, name, value)
    paths.append(Path(keep("last.png", io.BytesIO(bytes(1000)))))
    assert [path.is_file() for path in paths] == [False, False, True, True, True]
    assert len(list(folder.iterdir())) == 3


@pytest.mark.usefixtures("folder")
def test_a_visits_pictures_go_soon_after_it():
    kept = Uploads()
    mine, other = (keep("a.png", io.BytesIO(b"a")) for _ in range(2))
    kept.remember("mine", mine)
    kept.remember("other", other)
    for claimed in (None, "/etc/passwd", {}):
        kept.remember("mine", claimed)
    kept.end("mine")
    kept.end("nobody")
    left = KEPT_S - (time.time() - Path(mine).stat().st_mtime)
    assert left <= AFTER_VISIT_S
    assert time.time() - Path(other).stat().st_mtime < KEPT_S / 2


def test_an_aborted_upload_leaves_nothing(folder):
    class Aborted(io.BytesIO):
        def read(self, *_):
            raise ConnectionError

    with pytest.raises(ConnectionError):
        keep("a.png", Aborted())
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a.png", "a.png"),
        ("C:\\x\\ä b.JPG", "ä b.JPG"),
        ("../../etc/passwd", "passwd"),
        ("..", "picture"),
        ("", "picture"),
        ("a\n\0<b>.png", "a___b_.png"),
        ("a" * 300 + ".png", "a" * 80 + ".png"),
    ],
)
def test_names_are_plain(name, plain):
    assert plain_name(name) == plain


def test_more_pictures_than_workers_wait_for_their_turn(decoder, tmp_path):
    path = tmp_path / "a.png"
    noise(20, 20).save(path)
    sizes: list[tuple[int, int]] = []
    many = [threading.Thread(target=lambda: sizes.append(decoder.open(path).size)) for _ in "12345"]
    for one in many:
        one.start()
    for one in many:
        one.join()
    assert sizes == [(20, 20)] * 5


def test_a_worker_stays_for_the_next_picture_however_large_its_server_is(tmp_path):
    """A large one ends it: what it took goes back."""
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    noise(9, 9).save(small)
    Image.new("RGB", (10_000, 6_000)).save(large)
    much = np.ones(400 * 1024**2, np.uint8)  # of this process, the server's
    decoder = Decoder()
    workers = []
    for path in (small, small, large, small):
        decoder.open(path)
        workers.append(set(decoder._running))
    assert much.all()
    assert workers[0] == workers[1] != set()
    assert workers[2] == set()
    assert workers[3].isdisjoint(workers[0])
    decoder.close()
