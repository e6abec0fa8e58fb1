"""How the Hub in `tests.local_hub` answers each request: what the real one's HTTP API says."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from tests.local_hub import Files, LocalHub, Repo

LFS_SUFFIXES = (".safetensors", ".pt", ".webp", ".png")
TOKEN = "hf_test"


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def oid_of(path: str, data: bytes) -> str:
    """The content's id as the Hub gives it: sha256 for a large file, git's for any other."""
    return hashlib.sha256(data).hexdigest() if path.endswith(LFS_SUFFIXES) else git_oid(data)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    hub: "LocalHub"

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        self.body = self._read_body()
        url = urlsplit(self.path)
        self.query, line = parse_qs(url.query), f"{self.command} {url.path}"
        self.half = False
        with self.hub.lock:
            self.hub.log.append(line)
            fault = self.hub.take_fault(line)
            if fault and fault.kind == "drop":
                return self._close()
            if fault and isinstance(fault.kind, int):
                return self._error(fault.kind, "", "ordered fault")
            self.silent = bool(fault and fault.kind == "drop_after")
            self.half = bool(fault and fault.kind == "half")
            for method, pattern, route in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in method.split("|"):
                    return route(self, **{k: unquote(v) for k, v in match.groupdict().items() if v})
            return self._error(404, "EntryNotFound", f"no such endpoint {line}")

    do_GET = do_POST = do_PUT = do_HEAD = _any

    def _read_body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _close(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def _send(self, status: int, body: Any = b"", **headers: object) -> None:
        if self.silent:
            return self._close()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if self.half else data)
        return self._close() if self.half else None

    def _error(self, status: int, code: str, message: str, **headers: str) -> None:
        self.silent = False
        headers = {"X_Error_Code": code, "X_Error_Message": message, **headers}
        self._send(status, {"error": message}, **headers)

    @property
    def _logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, repo_id: str, write: bool = False) -> "Repo | None":
        """The repository if this caller may see it; else the error is sent."""
        repo = self.hub.repos.get(repo_id)
        if (self.headers.get("Authorization") or f"Bearer {TOKEN}") != f"Bearer {TOKEN}":
            self._error(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not self._logged_in):
            self._error(404 if self._logged_in else 401, "RepoNotFound", "Repository not found")
        elif write and not self._logged_in:
            self._error(401, "", "Invalid username or password.")
        else:
            return repo
        return None

    def _at(self, repo_id: str, revision: str) -> "tuple[str, Files] | None":
        repo = self._repo(repo_id)
        if repo is None:
            return None
        files = repo.files(revision)
        if files is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo.refs.get(revision, revision), files

    def create(self) -> None:
        if not self._logged_in:
            return self._error(401, "", "Invalid username or password.")
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        url = f"{self.hub.url}/{repo_id}"
        if repo_id in self.hub.repos:
            return self._send(409, {"error": "You already created this repo", "url": url})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.add(
            repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=bool(private)
        )
        return self._send(200, {"url": url, "name": repo_id, "id": repo_id})

    def yaml(self) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def whoami(self) -> None:
        if not self._logged_in:
            return self._error(401, "", "Invalid credentials in Authorization header")
        return self._send(200, {"type": "user", "name": self.hub.user, "orgs": []})

    def info(self, repo_id: str, revision: str = "main") -> None:
        if found := self._at(repo_id, revision):
            siblings = [{"rfilename": name} for name in sorted(found[1])]
            body = {"id": repo_id, "sha": found[0], "private": False, "siblings": siblings}
            self._send(200, body | {"tags": [], "downloads": 0, "likes": 0})

    def tree(self, repo_id: str, revision: str) -> None:
        if found := self._at(repo_id, revision):
            rows = [
                {"type": "file", "path": p, "size": len(d), "oid": git_oid(d)}
                for p, d in sorted(found[1].items())
            ]
            self._send(200, rows)

    def preupload(self, repo_id: str, revision: str) -> None:
        if self._repo(repo_id, write=True) and (found := self._at(repo_id, revision)):
            there = found[1]
            answers = []
            for asked in json.loads(self.body)["files"]:
                path = asked["path"]
                oid = oid_of(path, there[path]) if path in there else None
                mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
                answers.append(
                    {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}
                )
            self._send(200, {"files": answers})

    def lfs_batch(self, repo_id: str) -> None:
        if self._repo(repo_id, write=True):
            objects = []
            for asked in json.loads(self.body)["objects"]:
                answer = {"oid": asked["oid"], "size": asked["size"]}
                if asked["oid"] not in self.hub.lfs:
                    upload = {"href": f"{self.hub.url}/_lfs/{asked['oid']}"}
                    verify = {"href": f"{self.hub.url}/_lfs/verify"}
                    answer["actions"] = {"upload": upload, "verify": verify}
                objects.append(answer)
            self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._error(400, "", "content does not match its id")
        self.hub.lfs[oid] = self.body
        return self._send(200)

    def lfs_verify(self) -> None:
        asked = json.loads(self.body)
        self._send(200 if len(self.hub.lfs.get(asked["oid"], b"")) == asked["size"] else 404, {})

    def commit(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id, write=True)
        found = self._at(repo_id, revision) if repo else None
        if repo is None or found is None:
            return None
        files, title = dict(found[1]), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            kind, value = entry["key"], entry["value"]
            if kind == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, found[0]):
                    return self._error(412, "", "A commit has happened since.")
            elif kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    return self._error(400, "", "LFS object was not uploaded")
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif kind == "deletedFile":
                files.pop(value["path"], None)
        oid = repo.commit(files, title, revision)
        url = f"{self.hub.url}/{repo_id}/commit/{oid}"
        return self._send(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def commits(self, repo_id: str, revision: str) -> None:
        if self._at(repo_id, revision):
            repo = self.hub.repos[repo_id]
            date = "2026-01-01T00:00:00.000Z"
            rows = [
                {"id": o, "title": repo.titles[o], "date": date} for o in reversed(repo.commits)
            ]
            self._send(200, [row | {"message": "", "authors": []} for row in rows])

    def branch(self, repo_id: str, revision: str) -> None:
        if repo := self._repo(repo_id, write=True):
            if revision in repo.refs:
                return self._error(409, "", "Reference already exists")
            repo.refs[revision] = repo.refs["main"]
            return self._send(200, {})
        return None

    def file(self, repo_id: str, revision: str, path: str) -> None:
        found = self._at(repo_id, revision)
        if found is None:
            return None
        if self.hub.repos[repo_id].gated:
            return self._error(403 if self._logged_in else 401, "GatedRepo", "Access is restricted")
        oid, files = found
        if path not in files:
            missing = f"{path} not found"
            return self._error(404, "EntryNotFound", missing, X_Repo_Commit=oid)
        data = files[path]
        headers = {
            "ETag": f'"{oid_of(path, data)}"',
            "X_Repo_Commit": oid,
            "Accept_Ranges": "bytes",
        }
        if path.endswith(LFS_SUFFIXES):
            headers |= {"X_Linked_Etag": headers["ETag"], "X_Linked_Size": len(data)}
        if asked := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start = int(asked[1])
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._send(206, data[start:], **headers)
        if self.command == "HEAD":
            headers["Content_Length"] = len(data)
        return self._send(200, data, **headers)


_REPO = r"(?P<repo_id>[^/]+/[^/]+)"
_API = rf"/api/models/{_REPO}"
_REV = r"(?P<revision>[^/]+)"
ROUTES = (
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.yaml),
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("GET", _API, Handler.info),
    ("GET", rf"{_API}/revision/{_REV}", Handler.info),
    ("GET", rf"{_API}/commits/{_REV}", Handler.commits),
    ("GET", rf"{_API}/tree/{_REV}", Handler.tree),
    ("POST", rf"{_API}/preupload/{_REV}", Handler.preupload),
    ("POST", rf"{_API}/commit/{_REV}", Handler.commit),
    ("POST", rf"{_API}/branch/{_REV}", Handler.branch),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", "/_lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    ("POST", "/_lfs/verify", Handler.lfs_verify),
    ("GET|HEAD", rf"/{_REPO}/resolve/{_REV}/(?P<path>.+)", Handler.file),
)
