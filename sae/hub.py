"""From an id to a folder, and from a folder to the Hub.

Knows where artifacts live (the Hugging Face Hub, local folders, the package itself), how a card is
rendered from an artifact's JSON files, and how the Hub's failures read. Knows nothing of tensors.
Nothing here goes out to the network unless it is given a Hub id.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from sae.storage import replacing

BUNDLED = Path(__file__).resolve().parent / "bundled"
CARD_TEMPLATES = Path(__file__).resolve().parents[1] / "hub_cards"
NOT_PUSHED = ("checkpoints/**", "**/.*", ".*")
"""What `push_folder` leaves behind of a training run's folder."""

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
    named when the first one was asked for. A folder or "bundled" takes no `revision`.
    """
    if subfolder is not None:
        _check_subfolder(subfolder)
    folder = BUNDLED / bundled if str(id_or_dir) == "bundled" else Path(id_or_dir)
    if not folder.is_dir() and isinstance(id_or_dir, str) and _HUB_ID.fullmatch(id_or_dir):
        return _download(id_or_dir, files, revision, subfolder, token, local_files_only)
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

    Checkpoints and hidden files stay behind. Returns the commit's address; HubError on failure,
    after which the same call takes the upload up again.
    """
    from huggingface_hub import HfApi

    write_card(folder, repo_id)
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            revision=revision,
            commit_message=commit_message,
            ignore_patterns=list(NOT_PUSHED),
        )
    except (OSError, ValueError, _client_error()) as error:
        raise HubError(f"{repo_id}: the upload failed: {_reason(error)}") from error
    return str(commit.commit_url)


def write_card(folder: str | Path, repo_id: str | None = None) -> None:
    """Render README.md of an artifact's folder from its JSON files and nothing else."""
    import jinja2

    folder = Path(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(CARD_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("sae.md").render(
        config=_json_or_empty(folder / "config.json"),
        metrics=_json_or_empty(folder / "metrics.json"),
        training=_json_or_empty(folder / "training.json"),
        repo_id=repo_id or "PATH_OR_HUB_ID",
    )
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _json_or_empty(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


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
        try:
            path = hf_hub_download(
                repo_id,
                str(wanted),
                revision=commit,
                token=token,
                local_files_only=local_files_only,
            )
        except (OSError, ValueError, _client_error()) as error:
            where = f"{repo_id}@{revision}" if revision else repo_id
            raise HubError(f"{where}: cannot get {wanted}: {_reason(error)}") from error
        snapshot = Path(path).parents[len(wanted.parts) - 1]
        commit = snapshot.name
    return snapshot / (subfolder or "")


def _client_error() -> type[Exception]:
    """The base of the Hub client's HTTP errors, whichever HTTP library it is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _reason(error: Exception) -> str:
    """What a failure of the Hub client means and what to do about it."""
    from huggingface_hub import errors

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
            "the repository has no such file. Is it a PatchLens artifact, and is subfolder right?",
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
