"""Whether something can be written is found out before the work."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sae import storage
from sae.interop import __main__ as convert
from tests.tiny_saes import tiny_sae
from training import compare, publish, steerability


def test_room_is_looked_for_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="nothing can be written into .*file.* Give another --to"):
        storage.check_writable(tmp_path / "file", option="--to")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device. .* make room \(2 MiB\)"):
        storage.check_writable(tmp_path / "new", room=(1 << 20) + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["convert", "compare", "steerability", "space", "push"])
def test_commands_find_out_at_once_that_they_cannot_write(command: str, tmp_path: Path) -> None:
    """Nothing that they are told exists, and none of it is looked for: their first look is at the disk."""
    file = tmp_path / "file"
    file.write_text("no folder")
    out = str(file / "out")
    run: dict[str, tuple[Callable[..., int], list[str]]] = {
        "convert": (convert.main, ["no/such-sae", "--to", out]),
        "compare": (compare.main, ["--heads", "a", "b", "--task", "none", "--out", out]),
        "steerability": (steerability.main, ["--sae", "no/such-sae", "--out", out]),
        "space": (publish.main, ["space", out, "--sae", "no/such-sae"]),
    }
    if command == "push":
        folder = tmp_path / "run"
        tiny_sae("topk").save_pretrained(folder)
        folder.chmod(0o500)
        if os.access(folder, os.W_OK):
            pytest.skip("whoever runs this may write everywhere")
        run["push"] = (publish.main, ["push", str(folder), "user/name"])
    main, words = run[command]
    with pytest.raises(SystemExit, match="error: nothing can be written into "):
        main(words)
