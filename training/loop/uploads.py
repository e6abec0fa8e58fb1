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

from sae.hub import push_folder, pushed_files

Say = Callable[[str], None]


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Push a run's folder; says where it is, or why it failed and how to take it up again."""
    return _push(folder, repo_id, folder, private)


class Uploads:
    """Uploads of checkpoints, one at a time; a checkpoint that comes meanwhile is left out."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._busy: dict[str, Future] = {}

    def start(self, folder: Path, repo_id: str, private: bool = False) -> None:
        """Push `folder` as it is now, in the background."""
        going = self._busy.get(repo_id)
        if going is not None and not going.done():
            return
        try:
            snapshot = _snapshot(folder)
        except OSError as error:
            self._say(f"{folder} was not pushed: {error}")
            return
        self._busy[repo_id] = self._thread.submit(self._upload, snapshot, folder, repo_id, private)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown(wait=True)

    def _upload(self, snapshot: Path, folder: Path, repo_id: str, private: bool) -> None:
        try:
            self._say(_push(snapshot, repo_id, folder, private))
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)


def _push(snapshot: Path, repo_id: str, folder: Path, private: bool) -> str:
    try:
        # None leaves a repository that is there as it is, and what is new public
        return f"pushed to {push_folder(snapshot, repo_id, private=private or None)}"
    except Exception as error:  # whatever a client may raise: the run goes on, and says it
        again = ["python", "training/publish.py", "push", str(folder), repo_id]
        again += ["--private"] if private else []
        name = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        return (
            f"{name}{error}\nThe artifact in {folder} is whole. To take the upload up again:\n  "
            f"{shlex.join(again)}"
        )


def _snapshot(folder: Path) -> Path:
    """The artifact's files under a hidden folder beside them.

    They are hard links where the disk has them: a file that is replaced later keeps its old content
    here, and nothing is copied.
    """
    snapshot = Path(tempfile.mkdtemp(prefix=".push-", dir=folder))
    for name in pushed_files(folder):
        target = snapshot / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / name, target)
        except OSError:
            shutil.copyfile(folder / name, target)
    return snapshot
