"""An in-process Hub: the part of the Hub's HTTP API that the huggingface_hub client uses.

    with LocalHub() as hub, using(hub, cache): …

Repositories are histories of commits, a commit a dict of files. Large files go through git LFS's
batch API as on the real Hub. Faults can be ordered: `hub.fault("POST .*/commit/.*", "drop_after")`
makes the next matching request do its work and lose the answer. Every request is in `hub.log`.
"""

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.local_hub_api import TOKEN, Handler

__all__ = ["TOKEN", "LocalHub", "using"]

Files = dict[str, bytes]


@dataclass
class Repo:
    """A repository: commits oldest first, branches and tags by name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, title: str = "commit", branch: str = "main") -> str:
        """Add a commit of exactly these files; returns its id."""
        oid = hashlib.sha1(
            f"{len(self.commits)}{branch}{title}{sorted(files)}".encode()
        ).hexdigest()
        self.commits[oid], self.titles[oid], self.refs[branch] = dict(files), title, oid
        return oid

    def files(self, revision: str = "main") -> Files | None:
        return self.commits.get(self.refs.get(revision, revision))


@dataclass
class Fault:
    """What goes wrong with requests that match: "drop", "drop_after", "half", or a status."""

    pattern: str
    kind: str | int
    times: int


class LocalHub:
    """A server on a free port of this machine, with no repositories yet."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.lock, self.user = threading.RLock(), "tester"
        handler = type("Handler", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo_id: str, files: Files, **options: Any) -> Repo:
        """A repository of one commit."""
        self.repos[repo_id] = Repo(**options)
        self.repos[repo_id].commit(files)
        return self.repos[repo_id]

    def add_folder(self, repo_id: str, folder: Path, **options: Any) -> Repo:
        """A repository that holds a folder's files."""
        found = {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }
        return self.add(repo_id, found, **options)

    def fault(self, pattern: str, kind: str | int, times: int = 1) -> None:
        """Order a fault for the next `times` requests whose "METHOD /path" matches."""
        self.faults.append(Fault(pattern, kind, times))

    def requests(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(bool(re.fullmatch(pattern, line)) for line in self.log)

    def take_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and re.fullmatch(fault.pattern, line):
                fault.times -= 1
                return fault
        return None


@contextlib.contextmanager
def using(hub: LocalHub, cache: Path, token: str | None = TOKEN) -> Iterator[None]:
    """Point the real client, in this process, at a LocalHub and an empty cache."""
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(hf_api.api, "endpoint", hub.url)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no_token"))
        patch.setattr(_http.time, "sleep", lambda _: None)
        patch.setattr(file_download, "is_xet_available", lambda: False, raising=False)
        patch.setenv("HF_TOKEN", token or "")
        _http.close_session()
        yield
        _http.close_session()
