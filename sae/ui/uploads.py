"""Which uploaded files a visitor may name.

Knows: the folder Gradio saves uploads in. Does not know: pictures.
A browser names its upload by the path the server gave it, so a path is a claim by a stranger:
only regular files inside the upload folder are honoured, after every link is resolved.
"""

from pathlib import Path

from gradio.utils import get_upload_folder

MAX_UPLOAD = "24mb"
"""Largest file that the server accepts; `launch(max_file_size=...)`."""
MAX_UPLOAD_BYTES = 24 * 1024 * 1024


def uploaded_file(claimed: object) -> Path | None:
    """The uploaded file that `claimed` names, or None for anything else."""
    if not isinstance(claimed, str) or not claimed or len(claimed) > 4096 or "\0" in claimed:
        return None
    folder = Path(get_upload_folder()).resolve()
    path = Path(claimed)
    if not path.is_absolute():
        return None
    path = path.resolve()
    return path if path.is_relative_to(folder) and path.is_file() else None
