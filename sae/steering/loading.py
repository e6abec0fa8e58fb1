"""The concept index that may lie beside an SAE. Knows artifacts; knows no models."""

from pathlib import Path
from typing import Any

from sae.concepts.index import ConceptIndex
from sae.hub import HubError


def index_beside(id_or_dir: str | Path, **where: Any) -> ConceptIndex | None:
    """The artifact's index, or None if it has none. A damaged index is an ArtifactError."""
    folder = Path(id_or_dir)
    if folder.is_dir():
        inside = folder / (where.get("subfolder") or "") / "concepts"
        if not (inside / "index.json").is_file():
            return None
    try:
        return ConceptIndex.from_pretrained(id_or_dir, **where)
    except HubError:
        return None
