"""Pushing checkpoints while training goes on, and the finished artifact at the end.

Knows snapshots, one background thread and how to say what failed. A failed upload never ends a run.
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sae.hub import HubError, push_folder

Say = Callable[[str], None]
PUSHED = ("*.json", "*.safetensors", "*.md", "*.png", "concepts/*", "heads/*/*")


def push(folder: Path, repo_id: str) -> str:
    """Push a run's folder; says where it is, or why it failed and how to take it up again."""
    return _push(folder, repo_id, folder)


class Uploads:
    """Uploads of checkpoints, one at a time; a checkpoint that comes meanwhile is left out."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._busy: dict[str, Future] = {}

    def start(self, folder: Path, repo_id: str) -> None:
        """Push `folder` as it is now, in the background."""
        going = self._busy.get(repo_id)
        if going is not None and not going.done():
            return
        try:
            snapshot = _snapshot(folder)
        except OSError as error:
            self._say(f"{folder} was not pushed: {error}")
            return
        self._busy[repo_id] = self._thread.submit(self._upload, snapshot, folder, repo_id)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown(wait=True)

    def _upload(self, snapshot: Path, folder: Path, repo_id: str) -> None:
        try:
            self._say(_push(snapshot, repo_id, folder))
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)


def _push(snapshot: Path, repo_id: str, folder: Path) -> str:
    try:
        return f"pushed to {push_folder(snapshot, repo_id)}"
    except (HubError, OSError, ValueError) as error:
        again = ["python", "training/publish.py", "push", str(folder), repo_id]
        return (
            f"{error}\nThe artifact in {folder} is whole. To take the upload up again:\n  "
            f"{shlex.join(again)}"
        )


def _snapshot(folder: Path) -> Path:
    """The artifact's files under a hidden folder beside them.

    They are hard links where the disk has them: a file that is replaced later keeps its old content
    here, and nothing is copied.
    """
    snapshot = Path(tempfile.mkdtemp(prefix=".push-", dir=folder))
    for pattern in PUSHED:
        for path in folder.glob(pattern):
            target = snapshot / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)
    return snapshot
