"""From an id to a folder, and from a folder to the Hub: the one place that speaks with it.

Knows where artifacts live (the Hugging Face Hub, local folders, the package itself), which files of a
repository are fetched, that all files of one call come from one commit, how to take an upload up
again, and how the Hub's failures read (`sae.errors.HubError` and its kinds). Knows nothing of tensors
or of what a card says. Nothing here goes out to the network unless it is given a Hub id.
"""

import contextlib
import fnmatch
import glob
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from sae.cards import PICTURES, write_card
from sae.errors import (
    HubAccessDenied,
    HubError,
    HubFileNotFound,
    HubNotCached,
    HubRepositoryNotFound,
    HubUnreachable,
)

BUNDLED = Path(__file__).resolve().parent / "bundled"
PHOTOS = "photos"
"""The name of the lens on photographs, which comes along beside "bundled", the emoji world."""
NAMES = ("bundled", PHOTOS)
"""What names a model that comes with PatchLens, whatever folders there are."""
ATTEMPTS = 4
"""How often an upload is tried before it is given up; waits double from WAIT seconds."""
WAIT = 1.0
PUSHED: tuple[str, ...] = ("config.json", "cfg.json", "sae_weights.safetensors", "head.safetensors")
PUSHED += ("metrics.json", "training.json", "held_out.jsonl", "README.md", "LICENSE", *PICTURES)
PUSHED += ("fit.json", "examples/examples.json", "examples/*.webp")
PUSHED += ("concepts/*.json", "concepts/*.safetensors")
PUSHED += ("heads/**/*.json", "heads/**/head.safetensors")
"""What `push_folder` takes of a folder; logs, checkpoints and whatever else lies there stay."""

Names = Sequence[str]
_ARTIFACT = (
    " Is it a PatchLens artifact, is subfolder right, and was its upload finished? Another library's "
    "SAE opens with `patchlens convert`."
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


def local_folder(
    id_or_dir: str | Path,
    *,
    files: Names,
    optional: Names = (),
    bundled: str = "sae",
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder that holds `files` of a Hub id, of a folder, or of a name of NAMES.

    Files of a Hub id are downloaded into the Hub's cache, all from the commit that `revision`
    named when the first one was asked for; "user/name@revision" names one too. `optional` files are
    fetched from the same commit where it has them. A folder or a name takes no `revision`.
    FileNotFoundError for what is neither a folder nor a Hub id; HubError by its kind for what the
    Hub does not give.
    """
    if subfolder is not None:
        _check_subfolder(subfolder)
    folder = carried(str(id_or_dir), bundled) or Path(id_or_dir)
    if not folder.is_dir() and isinstance(id_or_dir, str):
        repo_id, _, pinned = id_or_dir.partition("@")
        if _HUB_ID.fullmatch(repo_id):
            access: dict[str, Any] = {"token": token, "local_files_only": local_files_only}
            named = revision or pinned or None
            return _download(repo_id, files, optional, named, subfolder, **access)
    if revision is not None:
        raise ValueError(f"{id_or_dir} is a folder and has no revision {revision!r}; drop it.")
    folder = folder / subfolder if subfolder else folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"No folder {folder}, and {str(id_or_dir)!r} is not a Hub id (user/name). "
            f"Give an existing folder, a Hub id, {' or '.join(map(repr, NAMES))}."
        )
    return folder


def carried(name: str, part: str = "sae") -> Path | None:
    """The folder of a `part` of what comes with PatchLens, by its name; None for other names."""
    if name not in NAMES:
        return None
    return (BUNDLED / PHOTOS if name == PHOTOS else BUNDLED) / part


def snapshot(
    repo_id: str,
    choose: Names | Callable[[list[str]], list[str]],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder of one commit of a Hub repository, named like the commit.

    `choose` says which files are downloaded: patterns such as "*.json", or what takes the names of
    all files and gives some of them. Where the Hub is not reached or not asked, names and files are
    those of the cache. HubError by its kind.
    """
    access: dict[str, Any] = {"token": token, "local_files_only": local_files_only}
    commit, names = _listing(repo_id, revision, **access)
    folder = _download(repo_id, _chosen(repo_id, choose, names), (), revision, None, **access)
    if folder.name != commit:  # the branch has moved on between the two
        commit, names = _listing(repo_id, folder.name, **access)
        folder = _download(repo_id, _chosen(repo_id, choose, names), (), commit, None, **access)
    return folder


def _chosen(
    repo_id: str, choose: Names | Callable[[list[str]], list[str]], names: list[str]
) -> list[str]:
    if callable(choose):
        return choose(names)
    wanted = [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in choose)]
    if not wanted:
        raise HubFileNotFound(
            f"{repo_id}: the repository has no files like {', '.join(choose)}. Check the name."
        )
    return wanted


@contextlib.contextmanager
def telling(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Whatever a library that asks the Hub by itself raises in this block, told as a HubError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, _client_error()) as error:
        cause = None if isinstance(error, HubError) else _known_cause(error)
        if cause is None:
            raise
        raise _told(cause, _at(repo_id, revision)) from error


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a sparse autoencoder",
) -> str:
    """Render the card, create the repository if needed and upload `folder` in one commit.

    Of the folder only an artifact's own files are taken (`PUSHED`). A connection that drops and an
    answer that promises better luck later (429, 5xx, a commit in between) are met by trying again;
    what has arrived is not sent twice, so a commit whose answer was lost is found there and not made
    again. Returns the commit's address; HubError on failure, after which the same call takes the
    upload up again.
    """
    from huggingface_hub import HfApi

    try:
        write_card(folder, repo_id)
    except (OSError, ValueError) as error:
        raise HubError(f"{repo_id}: the card of {folder} cannot be made: {error}") from error
    names = pushed_files(folder)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            api = HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                folder_path=folder,
                repo_id=repo_id,
                revision=revision,
                commit_message=commit_message,
                allow_patterns=[glob.escape(name) for name in names],
            )
            return str(commit.commit_url)
        except (OSError, ValueError, RuntimeError, ImportError, _client_error()) as error:
            if attempt == ATTEMPTS or not _passing(error):
                raise _told(error, f"{repo_id}: the upload failed") from error
            time.sleep(WAIT * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def pushed_files(folder: str | Path) -> list[str]:
    """The files of an artifact's folder that `push_folder` uploads, by their paths in it."""
    folder = Path(folder)
    paths = {path for pattern in PUSHED for path in folder.glob(pattern) if path.is_file()}
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return [name for name in names if not any(p.startswith(".") for p in name.split("/"))]


def commit_of(repo_id: str, *, revision: str | None = None, token: str | bool | None = None) -> str:
    """The commit that a Hub repository, or a revision of it, stands at; HubError if unknown."""
    return str(_info(repo_id, revision, token).sha)


def pinned(
    id_or_dir: str | Path, *, token: str | bool | None = None, local_files_only: bool = False
) -> str | Path:
    """A Hub id as "user/name@commit", so that several loads are of one commit; else what was given."""
    repo_id, _, revision = str(id_or_dir).partition("@")
    if not isinstance(id_or_dir, str) or Path(id_or_dir).is_dir() or not _HUB_ID.fullmatch(repo_id):
        return id_or_dir
    access: dict[str, Any] = {"token": token, "local_files_only": local_files_only}
    return f"{repo_id}@{_listing(repo_id, revision or None, **access)[0]}"


def list_files(
    repo_id: str, *, revision: str | None = None, token: str | bool | None = None
) -> list[str]:
    """The names of a Hub repository's files; HubError if it cannot be had."""
    return [sibling.rfilename for sibling in _info(repo_id, revision, token).siblings or ()]


def _info(repo_id: str, revision: str | None, token: str | bool | None) -> Any:
    from huggingface_hub import HfApi

    try:
        return HfApi(token=token).model_info(repo_id, revision=revision)
    except (OSError, ValueError, RuntimeError, ImportError, _client_error()) as error:
        raise _told(error, f"{_at(repo_id, revision)}: cannot be asked for its files") from error


def _listing(
    repo_id: str, revision: str | None, *, token: str | bool | None, local_files_only: bool
) -> tuple[str, list[str]]:
    """A commit and the names of its files, from the Hub or else from the cache."""
    failure: HubError | None = None
    if not local_files_only:
        try:
            info = _info(repo_id, revision, token)
            return str(info.sha), [sibling.rfilename for sibling in info.siblings or ()]
        except (HubUnreachable, HubNotCached) as error:
            failure = error
    folder = _cached_snapshot(repo_id, revision)
    if folder is None:
        raise failure or HubNotCached(f"{_at(repo_id, revision)}: {_NOT_CACHED}")
    return folder.name, [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


def _cached_snapshot(repo_id: str, revision: str | None) -> Path | None:
    """What the cache has of a revision, complete or not: models--USER--NAME/snapshots/COMMIT."""
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE, f"models--{repo_id.replace('/', '--')}")
    ref = home / "refs" / (revision or "main")
    commit = ref.read_text(encoding="utf-8") if ref.is_file() else (revision or "main")
    folder = home / "snapshots" / commit
    return folder if folder.is_dir() and folder.parent == home / "snapshots" else None


def _passing(error: Exception) -> bool:
    """Whether trying again may help: no answer at all, 429, 412 or the server's own fault."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 409, 412, 425, 429) or status >= 500
    cause = error.__cause__ or error.__context__
    if isinstance(error, RuntimeError) and isinstance(cause, Exception):
        return _passing(cause)
    return isinstance(error, (_client_error(), ConnectionError))


def _check_subfolder(subfolder: str) -> None:
    path = PurePosixPath(subfolder)
    if path.is_absolute() or ".." in path.parts or "\\" in subfolder or not path.parts:
        raise ValueError(f"subfolder must be a path inside the repository, got {subfolder!r}.")


def _download(
    repo_id: str,
    files: Names,
    optional: Names,
    revision: str | None,
    subfolder: str | None,
    *,
    token: str | bool | None,
    local_files_only: bool,
) -> Path:
    """The folder of these files in the cache, every one from the commit of the first."""
    commit, snapshot = revision, Path()
    for file in (*files, *optional):
        wanted = PurePosixPath(subfolder or "", file)
        try:
            path = _fetch(repo_id, str(wanted), commit, token, local_files_only)
        except (HubFileNotFound, HubNotCached):
            if file not in optional:
                raise
            continue
        snapshot = path.parents[len(wanted.parts) - 1]
        commit = snapshot.name
    return snapshot / (subfolder or "")


def _fetch(
    repo_id: str, file: str, revision: str | None, token: str | bool | None, local_files_only: bool
) -> Path:
    """One file of a repository, downloaded or from the cache."""
    from huggingface_hub import hf_hub_download

    what = f"{_at(repo_id, revision)}: cannot get {file}"
    access = {"revision": revision, "token": token}
    try:
        try:
            return Path(hf_hub_download(repo_id, file, local_files_only=local_files_only, **access))
        except _client_error() as error:
            if getattr(error, "response", None) is not None:
                raise
            # the connection broke; the client looks into the cache only if there was none
            return _cached(repo_id, file, access, error)
    except (OSError, ValueError, RuntimeError, ImportError, _client_error()) as error:
        told = _told(error, what, asked=not local_files_only)
        if isinstance(told, HubUnreachable | HubNotCached) and _known_absent(
            repo_id, file, revision
        ):
            told = HubFileNotFound(f"{what}: {_NO_FILE}{_ARTIFACT}")
        elif isinstance(told, HubFileNotFound):
            told = HubFileNotFound(f"{told}{_ARTIFACT}")
        raise told from error


def _cached(repo_id: str, file: str, access: dict[str, Any], error: Exception) -> Path:
    """The file in the cache, or else `error`."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo_id, file, local_files_only=True, **access))
    except LocalEntryNotFoundError:
        raise error from None


def _known_absent(repo_id: str, file: str, revision: str | None) -> bool:
    """Whether the cache remembers that this revision has no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    try:
        return try_to_load_from_cache(repo_id, file, revision=revision) is _CACHED_NO_EXIST
    except ValueError:
        return False


def _client_error() -> type[Exception]:
    """The base of the Hub client's HTTP errors, whichever HTTP library it is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _at(repo_id: str, revision: str | None) -> str:
    return f"{repo_id}@{revision}" if revision else repo_id


_NO_FILE = "the repository has no such file."
_NOT_CACHED = (
    "it is not in the local cache, and the Hub was not reached or not asked. Connect, or drop "
    "local_files_only and HF_HUB_OFFLINE."
)


def _causes() -> tuple[tuple[type[Exception], type[HubError], str], ...]:
    """The client's exceptions, ours, and what they mean and what to do; the first that fits holds."""
    from huggingface_hub import errors

    return (
        (
            errors.GatedRepoError,
            HubAccessDenied,
            "the repository is gated. Ask for access on its page, then log in with "
            "`hf auth login` or pass token=….",
        ),
        (
            errors.RepositoryNotFoundError,
            HubRepositoryNotFound,
            "no such repository, or it is private. Check the spelling; for a private one log in "
            "with `hf auth login` or pass token=….",
        ),
        (
            errors.RevisionNotFoundError,
            HubRepositoryNotFound,
            "the repository has no such revision. Give an existing branch, tag or full commit.",
        ),
        (
            errors.LocalEntryNotFoundError,
            HubNotCached,
            _NOT_CACHED,
        ),
        (errors.EntryNotFoundError, HubFileNotFound, _NO_FILE),
        (
            errors.OfflineModeIsEnabled,
            HubNotCached,
            "HF_HUB_OFFLINE is set. Unset it, or use a local folder.",
        ),
        (
            errors.HFValidationError,
            HubRepositoryNotFound,
            "this is not a valid Hub id. Write it as user/name.",
        ),
    )


def _told(error: Exception, what: str, *, asked: bool = True) -> HubError:
    """A failure of the Hub client as one of ours. `asked`: whether the Hub was to be asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, _client_error()):
        error = error.__cause__  # the answer for which the client looked into the cache
    for kind, ours, reason in _causes():
        if isinstance(error, kind):
            if ours is HubNotCached and asked and not _offline():
                ours = HubUnreachable
            return ours(f"{what}: {reason}")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return HubAccessDenied(
            f"{what}: the Hub refused (HTTP {status}). Log in with `hf auth login` or pass token=…."
        )
    if status is not None:
        return HubUnreachable(f"{what}: the Hub answered HTTP {status}. Try again later.")
    if isinstance(error, _client_error()):
        return HubUnreachable(
            f"{what}: the Hub cannot be reached ({error}). Check the network and try again."
        )
    if _no_socks(error):
        return HubUnreachable(
            f"{what}: a SOCKS proxy is set (ALL_PROXY, HTTPS_PROXY), which needs pip install "
            "'httpx[socks]'. Install that, or unset the proxy."
        )
    return HubError(f"{what}: {error}")


def _no_socks(error: BaseException) -> bool:
    """Whether a SOCKS proxy is set (ALL_PROXY) that httpx cannot speak to as it is installed."""
    return isinstance(error, ImportError) and "socks" in str(error).lower()


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _known_cause(error: BaseException) -> Exception | None:
    """The Hub client's own exception behind another library's, or None."""
    kinds = (*(kind for kind, _, _ in _causes()), _client_error())
    behind: BaseException | None = error
    if _no_socks(error):
        return ImportError(str(error))
    for _ in range(8):
        if behind is None or isinstance(behind, kinds):
            return behind
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)
    return None
