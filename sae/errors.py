"""Every error that PatchLens raises of its own, and the Python errors that each of them also is.

    PatchLensError
    ├── ConfigError            ValueError    a setting that no SAE, backbone or reader can have
    ├── ArtifactError          ValueError    a file that is not what its format promises
    ├── ImageError             ValueError    a picture that cannot be used
    ├── BackboneError          OSError       a model's folder that cannot be opened as a backbone
    └── HubError               OSError       something of the Hub that cannot be had
        ├── HubFileNotFound                  the repository is there and has no such file
        ├── HubRepositoryNotFound            no such repository or revision, as far as one may see
        ├── HubAccessDenied                  gated, or the Hub wants a login or another one
        ├── HubUnreachable                   no answer: the network, or the server's own fault
        └── HubNotCached                     not asked, by wish, and the cache does not have it

Whether something is missing (the two NotFound) or could not be asked for (the three after them) is
told by the class alone. Every message says what was found, what was expected and what to do next. Knows
nothing of what raises them. Errors in an argument of a call stay Python's own ValueError, TypeError
and IndexError.
"""

from pathlib import Path

AGAIN = "Download or save the artifact again."


class PatchLensError(Exception):
    """The base of all errors below."""


class ConfigError(PatchLensError, ValueError):
    """A setting is missing, contradicts another or has no meaning; the message names it."""


class ArtifactError(PatchLensError, ValueError):
    """A file of an artifact is not what its format promises. Names file, found, expected, next."""

    def __init__(self, file: Path, actual: str, expected: str, next_step: str = AGAIN) -> None:
        super().__init__(f"{file}: found {actual}; expected {expected}. {next_step}")


class ImageError(PatchLensError, ValueError):
    """A picture that cannot be used. Its text is one sentence that can be shown to a person."""


class BackboneError(PatchLensError, OSError):
    """A folder is no model that can be opened, or its weights are pickled or incomplete."""


class HubError(PatchLensError, OSError):
    """A Hub repository, revision or file cannot be had; the message says why and what to do."""


class HubFileNotFound(HubError):  # noqa: N818
    """The repository was asked and has no such file."""


class HubRepositoryNotFound(HubError):  # noqa: N818
    """The Hub knows no such repository or revision, or does not show it to this login."""


class HubAccessDenied(HubError):  # noqa: N818
    """The repository is gated, or the Hub refused the login."""


class HubUnreachable(HubError):  # noqa: N818
    """The Hub gave no answer: no network, or a fault of the server."""


class HubNotCached(HubError):  # noqa: N818
    """The Hub was not asked (local_files_only, HF_HUB_OFFLINE), and the local cache has no such file."""
