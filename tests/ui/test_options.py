"""Options of the app and the constants of its page."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sae.errors import HubError
from sae.hub import BUNDLED
from sae.ui.options import lenses, load, parse
from tests.local_hub import LocalHub, using

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_and_command_line():
    options = parse([], {})
    assert (options.backbone, options.sae, options.host, options.port) == (
        None,
        None,
        "127.0.0.1",
        None,
    )
    options = parse(
        ["--backbone", "a/b", "--sae", "x", "--device", "cpu", "--port", "7001", "--share"], {}
    )
    assert (options.backbone, options.sae, options.device, options.port, options.share) == (
        "a/b",
        "x",
        "cpu",
        7001,
        True,
    )


def test_environment_gives_defaults_and_the_command_line_wins():
    environment = {
        "PATCHLENS_BACKBONE": "a/b",
        "PATCHLENS_SAE": "c/d",
        "PATCHLENS_DEVICE": "cuda",
        "PATCHLENS_PORT": "8001",
        "PATCHLENS_SHARE": "1",
    }
    options = parse([], environment)
    assert (options.backbone, options.sae, options.device, options.port, options.share) == (
        "a/b",
        "c/d",
        "cuda",
        8001,
        True,
    )
    assert parse(["--sae", "e"], environment).sae == "e"


def test_the_address_is_the_persons_choice():
    gradios = {"GRADIO_SERVER_NAME": "0.0.0.0"}
    assert parse([], gradios).host == "0.0.0.0"
    assert parse([], {**gradios, "PATCHLENS_HOST": "10.0.0.1"}).host == "10.0.0.1"
    assert parse(["--host", "::1"], gradios).host == "::1"


def test_a_space_listens_to_everyone():
    options = parse([], {"SPACE_ID": "someone/patchlens"})
    assert (options.host, options.port) == ("0.0.0.0", 7860)


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "x"], ["--what"]])
def test_bad_options_end_with_a_usage_line(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["app.py"])
    with pytest.raises(SystemExit):
        parse(arguments, {})
    assert "usage: app.py" in capsys.readouterr().err


def test_a_bad_port_in_the_environment_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse([], {"PATCHLENS_PORT": "seven"})
    assert "expected a whole number" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_gradio():
    code = "import sys, runpy\nsys.argv = ['app.py', '--help']\n"
    code += "try: runpy.run_path('app.py', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'gradio') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.strip().endswith("[]")
    assert "--backbone" in out.stdout


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_sae_of_the_hub_without_an_index_and_one_that_cannot_be_asked_for(tmp_path):
    left_out = shutil.ignore_patterns("concepts", "metrics.json")
    shutil.copytree(BUNDLED / "sae", tmp_path / "sae", ignore=left_out)
    with LocalHub() as hub, using(hub, tmp_path / "cache"):
        for name in ("tester/sae", "tester/other"):
            hub.add_folder(name, tmp_path / "sae")
        loaded = load(parse(["--sae", "tester/sae", "--device", "cpu"], {}))
        assert loaded.index is None
        assert loaded.metrics is None
        hub.fault(".*/resolve/.*index.json", 503, 9)
        with pytest.raises(HubError, match=r"index\.json: the Hub answered HTTP 503"):
            load(parse(["--sae", "tester/other", "--device", "cpu"], {}))


def names(arguments: list[str], environment: dict[str, str] | None = None) -> list[str]:
    """The SAEs of the lenses that a command line asks for, in the switch's order."""
    return [str(own.sae) for _, own in lenses(parse(arguments, environment or {}))]


def test_which_lenses_a_command_line_asks_for(monkeypatch, tmp_path):
    monkeypatch.setattr("sae.ui.options._came_along", lambda _sae: True)
    assert names([]) == ["photos", "bundled"]
    assert names(["--lens", "emoji"]) == ["bundled"]
    assert names([], {"PATCHLENS_LENS": "photos"}) == ["photos"]
    assert names(["--sae", str(tmp_path)]) == [str(tmp_path)]
    assert names(["--sae", str(tmp_path), "--lens", "both"]) == [str(tmp_path), "photos", "bundled"]
    assert names(["--sae", "bundled", "--lens", "both"]) == ["bundled", "photos"]
    assert names(["--backbone", "a/b"]) == ["bundled"]
    (mine, own), (_, beside) = lenses(
        parse(["--sae", "x/Emoji", "--lens", "emoji", "--vlm", "v"], {})
    )
    assert (mine.name, mine.title, own.vlm, beside.vlm) == ("emoji-sae", "Emoji", "v", None)
    with pytest.raises(ValueError, match="are for one lens"):
        names(["--lens", "both", "--vlm", "v"])
    with pytest.raises(SystemExit):
        parse([], {"PATCHLENS_LENS": "birds"})


def test_without_the_photographs_the_emoji_world_opens_alone(monkeypatch):
    monkeypatch.setattr("sae.ui.options._came_along", lambda sae: sae == "bundled")
    assert names([]) == ["bundled"]
    with pytest.raises(FileNotFoundError, match="--lens emoji"):
        names(["--lens", "photos"])
