"""From an id to a folder, and from a folder to the Hub.

Knows where artifacts live (the Hugging Face Hub, local folders, the package itself), how to take an
upload up again, and how the Hub's failures read. Knows nothing of tensors or of what a card says.
Nothing here goes out to the network unless it is given a Hub id.
"""

import glob
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from sae.cards import PICTURES, write_card

__all__ = ["BUNDLED", "HubError", "commit_of", "list_files", "local_folder", "push_folder"]
__all__ += ["pushed_files", "write_card"]

BUNDLED = Path(__file__).resolve().parent / "bundled"
ATTEMPTS = 4
"""How often an upload is tried before it is given up; waits double from WAIT seconds."""
WAIT = 1.0
PUSHED = ("config.json", "cfg.json", "sae_weights.safetensors", "head.safetensors")
PUSHED += ("metrics.json", "training.json", "README.md", "LICENSE", *PICTURES)
PUSHED += ("concepts/*.json", "concepts/*.safetensors")
PUSHED += ("heads/**/*.json", "heads/**/head.safetensors")
"""What `push_folder` takes of a folder; logs, checkpoints and whatever else lies there stay."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


class HubError(OSError):
    """A Hub repository, revision or file cannot be had; the message says why and what to do."""


def local_folder(
    id_or_dir: str | Path,
    *,
    files: Sequence[str],
    bundled: str = "sae",
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder that holds `files` of a Hub id, of a folder, or of `"bundled"`.

    Files of a Hub id are downloaded into the Hub's cache, all from the commit that `revision`
    named when the first one was asked for; "user/name@revision" names one too. A folder or
    "bundled" takes no `revision`.
    """
    if subfolder is not None:
        _check_subfolder(subfolder)
    folder = BUNDLED / bundled if str(id_or_dir) == "bundled" else Path(id_or_dir)
    if not folder.is_dir() and isinstance(id_or_dir, str):
        repo_id, _, pinned = id_or_dir.partition("@")
        if _HUB_ID.fullmatch(repo_id):
            revision = revision or pinned or None
            return _download(repo_id, files, revision, subfolder, token, local_files_only)
    if revision is not None:
        raise ValueError(f"{id_or_dir} is a folder and has no revision {revision!r}; drop it.")
    folder = folder / subfolder if subfolder else folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"No folder {folder}, and {str(id_or_dir)!r} is not a Hub id (user/name). "
            "Give an existing folder, a Hub id or 'bundled'."
        )
    return folder


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
        except (OSError, ValueError, RuntimeError, _client_error()) as error:
            if attempt == ATTEMPTS or not _passing(error):
                raise HubError(f"{repo_id}: the upload failed: {_reason(error)}") from error
            time.sleep(WAIT * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def pushed_files(folder: str | Path) -> list[str]:
    """The files of an artifact's folder that `push_folder` uploads, by their paths in it."""
    folder = Path(folder)
    found = {path for pattern in PUSHED for path in folder.glob(pattern) if path.is_file()}
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    return [name for name in names if not any(p.startswith(".") for p in name.split("/"))]


def commit_of(repo_id: str, *, revision: str | None = None, token: str | bool | None = None) -> str:
    """The commit that a Hub repository, or a revision of it, stands at; HubError if unknown."""
    return str(_ask(repo_id, token, lambda api: api.model_info(repo_id, revision=revision)).sha)


def list_files(
    repo_id: str, *, revision: str | None = None, token: str | bool | None = None
) -> list[str]:
    """The names of a Hub repository's files; HubError if it cannot be had."""
    return _ask(repo_id, token, lambda api: api.list_repo_files(repo_id, revision=revision))


def _ask(repo_id: str, token: str | bool | None, question: Callable[[Any], Any]) -> Any:
    from huggingface_hub import HfApi

    try:
        return question(HfApi(token=token))
    except (OSError, ValueError, RuntimeError, _client_error()) as error:
        raise HubError(f"{repo_id}: cannot be asked for its files: {_reason(error)}") from error


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
    files: Sequence[str],
    revision: str | None,
    subfolder: str | None,
    token: str | bool | None,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import hf_hub_download

    commit = revision
    for file in files:
        wanted = PurePosixPath(subfolder or "", file)
        access = {"revision": commit, "token": token}
        try:
            try:
                path = hf_hub_download(
                    repo_id, str(wanted), local_files_only=local_files_only, **access
                )
            except _client_error() as error:
                if getattr(error, "response", None) is not None:
                    raise
                # the connection broke; the client looks into the cache only if there was none
                path = _cached(repo_id, str(wanted), access, error)
        except (OSError, ValueError, RuntimeError, _client_error()) as error:
            where = f"{repo_id}@{revision}" if revision else repo_id
            raise HubError(f"{where}: cannot get {wanted}: {_reason(error)}") from error
        snapshot = Path(path).parents[len(wanted.parts) - 1]
        commit = snapshot.name
    return snapshot / (subfolder or "")


def _cached(repo_id: str, file: str, access: dict[str, Any], error: Exception) -> str:
    """The file in the cache, or else `error`."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return hf_hub_download(repo_id, file, local_files_only=True, **access)
    except LocalEntryNotFoundError:
        raise error from None


def _client_error() -> type[Exception]:
    """The base of the Hub client's HTTP errors, whichever HTTP library it is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _reason(error: Exception) -> str:
    """What a failure of the Hub client means and what to do about it."""
    from huggingface_hub import errors

    while type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        error = error.__cause__
    known: tuple[tuple[type[Exception], str], ...] = (
        (
            errors.GatedRepoError,
            "the repository is gated. Ask for access on its page, then log in with "
            "`hf auth login` or pass token=….",
        ),
        (
            errors.RepositoryNotFoundError,
            "no such repository, or it is private. Check the spelling; for a private one log in "
            "with `hf auth login` or pass token=….",
        ),
        (
            errors.RevisionNotFoundError,
            "the repository has no such revision. Give an existing branch, tag or full commit.",
        ),
        (
            errors.LocalEntryNotFoundError,
            "it is not in the local cache, and the Hub was not reached or not asked. Connect, or "
            "drop local_files_only and HF_HUB_OFFLINE.",
        ),
        (
            errors.EntryNotFoundError,
            "the repository has no such file. Is it a PatchLens artifact, is subfolder right, and was "
            "its upload finished? Another library's SAE opens with `python -m sae.interop`.",
        ),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set. Unset it, or use a local folder."),
        (errors.HFValidationError, "this is not a valid Hub id. Write it as user/name."),
    )
    for kind, reason in known:
        if isinstance(error, kind):
            return reason
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hub refused (HTTP {status}). Log in with `hf auth login` or pass token=…."
    if status is not None:
        return f"the Hub answered HTTP {status}. Try again later."
    if isinstance(error, _client_error()):
        return f"the Hub cannot be reached ({error}). Check the network and try again."
    return f"{error}"
