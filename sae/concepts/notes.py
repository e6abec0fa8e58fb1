"""People's own names, notes and pins of concepts: one small JSON file, format 1.

    {"kind": "patchlens notes", "format": 1,
     "sae": {"id": "bundled", "sha256": "5b…", "d_sae": 2048}, "saved": "2026-11-29",
     "concepts": [{"latent": 12, "name": "stripes", "note": "fur only", "pinned": true}]}

Knows that file, how it is checked and how two are joined; knows nothing of models or of how an index is
stored. The page writes and reads the same (static/notes_file.js). A name is one line of at most MAX_NAME
characters, a note of at most MAX_NOTE; numbers are those of the SAE whose weights have the hash, and mean
other concepts in any other.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sae.errors import ArtifactError
from sae.storage import read_json_value, typed_fields, write_json

KIND, FORMAT = "patchlens notes", 1
OWN = "notes"
"""The source of a name that a person gave."""
MAX_NAME, MAX_NOTE, MAX_CONCEPTS = 80, 1000, 1000
MAX_BYTES = 16 << 20
_AGAIN = "Save the notes again: on the page under “Take away”, or with ConceptIndex.save_notes."
_FILE = {"kind": (str,), "format": (int,), "sae": (dict,), "saved": (str, type(None))}
_FILE["concepts"] = (list,)
_SAE = {"id": (str,), "sha256": (str,), "d_sae": (int,)}
_CONCEPT = {"latent": (int,), "name": (str,), "note": (str,)}


class Note(NamedTuple):
    """What people say of one concept."""

    name: str = ""
    note: str = ""
    pinned: bool = False

    def over(self, other: "Note") -> "Note":
        """What both say; where both say something, this one."""
        return Note(self.name or other.name, self.note or other.note, self.pinned or other.pinned)


class Owner(NamedTuple):
    """The SAE whose concepts are spoken of."""

    id: str
    sha256: str
    """Of its weights; "" if it is not known."""
    d_sae: int


def read_notes(
    source: str | Path | Mapping[str, Any], owner: Owner, *, by_number: bool = False
) -> dict[int, Note]:
    """The notes of a file, or of what such a file holds, for the concepts of `owner`.

    ArtifactError for what is no such file, is damaged, or speaks of another SAE: its numbers are other
    concepts. With `by_number` they are taken all the same.
    """
    file, content = _content_of(source)
    for key, value in (("kind", KIND), ("format", FORMAT)):
        if content.get(key) != value:
            raise ArtifactError(
                file, f"{key} {str(content.get(key))[:40]!r}", f"{key} {value!r}", _AGAIN
            )
    fields = typed_fields(file, {"saved": None, **content}, _FILE, "")
    theirs = typed_fields(file, fields["sae"], _SAE, "sae.")
    rows = fields["concepts"]
    if not by_number:
        _check_owner(file, Owner(**theirs), owner)
    return checked(file, rows, owner.d_sae)


def checked(file: Path, rows: Sequence[object], d_sae: int) -> dict[int, Note]:
    """The rows of "concepts" by their numbers; ArtifactError names the first that cannot be."""
    if len(rows) > MAX_CONCEPTS:
        raise ArtifactError(file, f"{len(rows):,} concepts", f"at most {MAX_CONCEPTS:,}", _AGAIN)
    notes: dict[int, Note] = {}
    for number, row in enumerate(rows):
        where = f"concepts[{number}]."
        pinned = row.get("pinned", False) if isinstance(row, Mapping) else False
        if not isinstance(pinned, bool):
            raise ArtifactError(file, f"{where}pinned = {pinned!r}", "true or false", _AGAIN)
        texts = {k: v for k, v in row.items() if k != "pinned"} if isinstance(row, dict) else row
        known = typed_fields(
            file,
            {"name": "", "note": "", **texts} if isinstance(texts, dict) else texts,
            _CONCEPT,
            where,
        )
        latent = known["latent"]
        if not 0 <= latent < d_sae or latent in notes:
            found = "a second entry" if latent in notes else "no such concept"
            raise ArtifactError(
                file, f"{where}latent = {latent}: {found}", f"once each, 0 to {d_sae - 1}", _AGAIN
            )
        name = " ".join(_text(file, f"{where}name", known["name"], MAX_NAME, "").split())
        note = _text(file, f"{where}note", known["note"], MAX_NOTE, "\n\t").strip()
        notes[latent] = Note(name, note, pinned)
    return {latent: notes[latent] for latent in sorted(notes) if notes[latent] != Note()}


def joined(*each: Mapping[int, Note]) -> dict[int, Note]:
    """All notes together; where two say something of one concept, the later ones say it."""
    notes: dict[int, Note] = {}
    for more in each:
        for latent, note in more.items():
            notes[latent] = note.over(notes.get(latent, Note()))
    return dict(sorted(notes.items()))


def rows_of(notes: Mapping[int, Note]) -> list[dict[str, Any]]:
    """The entries of "concepts"."""
    return [{"latent": latent, **note._asdict()} for latent, note in sorted(notes.items())]


def with_own_names(
    names: Mapping[str, list[Any]], notes: Mapping[int, Note]
) -> dict[str, list[Any]]:
    """What names.json holds of the model's names, with people's own in their places: wholly sure, with no
    score, and from OWN."""
    own = {latent: note.name for latent, note in notes.items() if note.name}
    shown = {key: list(names[key]) for key in ("names", "sources", "scores", "confidences")}
    for latent, name in own.items():
        for key, value in zip(shown, (name, OWN, 0.0, 1.0), strict=True):
            shown[key][latent] = value
    return shown


def save_notes(
    file: str | Path, notes: Mapping[int, Note], owner: Owner, saved: str | None = None
) -> None:
    """Write the file; `saved` is a date, as 2026-11-29."""
    head = {"kind": KIND, "format": FORMAT, "sae": owner._asdict(), "saved": saved}
    write_json(Path(file), {**head, "concepts": rows_of(notes)})


def _content_of(source: str | Path | Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
    """How the source is called in errors, and what it holds."""
    if isinstance(source, Mapping):
        return Path("notes"), source
    file = Path(source)
    if not file.is_file():
        raise ArtifactError(file, "no such file", "notes that were saved", "Check the path.")
    return file, read_json_value(file, dict, MAX_BYTES)


def _check_owner(file: Path, theirs: Owner, ours: Owner) -> None:
    known = bool(theirs.sha256 and ours.sha256)
    if theirs.d_sae == ours.d_sae and (not known or theirs.sha256 == ours.sha256):
        return
    raise ArtifactError(
        file,
        f"notes on another SAE ({theirs.id or 'no id'}, {theirs.d_sae:,} concepts, {theirs.sha256[:12]})",
        f"this one's ({ours.d_sae:,} concepts, {ours.sha256[:12]})",
        "The same numbers are other concepts there; to take them all the same, say by_number=True "
        "(patchlens notes --by-number).",
    )


def _text(file: Path, where: str, text: str, most: int, allowed: str) -> str:
    if len(text) > most:
        raise ArtifactError(
            file, f"{where} of {len(text):,} characters", f"at most {most:,}", _AGAIN
        )
    for letter in text:
        if letter not in allowed and unicodedata.category(letter) in ("Cc", "Cs"):
            raise ArtifactError(
                file, f"{where} with the character {letter!r}", "plain text", _AGAIN
            )
    return text
