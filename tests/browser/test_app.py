"""What the app says when it cannot start."""

import subprocess
import sys

from tests.browser.serving import ROOT
from tests.small_page import small_backbone, small_sae


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_sae_for_another_backbone_is_a_clear_sentence(tmp_path):
    small_sae(small_backbone()).save_pretrained(tmp_path)
    ended = run("--sae", str(tmp_path), "--backbone", "bundled")
    assert ended.returncode == 1
    assert "error: the SAE reads activations of width 32" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_sae_is_a_clear_sentence():
    ended = run("--sae", "no-such-folder")
    assert ended.returncode == 1
    assert "no-such-folder" in ended.stderr
    assert "Traceback" not in ended.stderr
