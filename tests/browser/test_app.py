"""The app as `make demo` starts it, on the bundled models, and what it says when it cannot start."""

import subprocess
import sys

import pytest

from sae.model import SparseAutoencoder
from tests.browser.serving import ROOT, Visit, browser, chromium, served
from tests.tiny_lens import tiny_backbone, tiny_sae


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_the_bundled_models_open_on_a_named_page_without_errors():
    with served("app.py", "--port", "{port}") as url, browser() as running:
        visit = Visit(running, url)
        page = visit.open()
        page.wait_for_timeout(1500)
        d_sae = SparseAutoencoder.from_pretrained("bundled").cfg.d_sae
        assert f"{d_sae:,}" in page.locator(".pl-lead").inner_text()
        assert page.locator(".pl-row:not([hidden])").count() > 3
        assert page.locator(".pl-warning").is_hidden()
        assert (visit.errors, visit.foreign) == ([], [])
        visit.close()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_sae_for_another_backbone_is_a_clear_sentence(tmp_path):
    tiny_sae(tiny_backbone()).save_pretrained(tmp_path)
    ended = run("--sae", str(tmp_path), "--backbone", "bundled")
    assert ended.returncode == 1
    assert "PatchLens cannot start: the SAE and the backbone do not fit" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_sae_is_a_clear_sentence():
    ended = run("--sae", "no-such-folder")
    assert ended.returncode == 1
    assert "no-such-folder" in ended.stderr
    assert "Traceback" not in ended.stderr
