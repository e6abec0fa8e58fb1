"""What is kept of a trained head beside its weights: options, accuracies, metrics.json.

Knows the files seed-N.json and metrics.json and how accuracy is measured; trains nothing.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch

from sae.adaptation.classifier import Classifier, accuracy
from sae.adaptation.files import load_head
from sae.backbones.prompting import ClipParts
from sae.storage import plain_key, read_json
from training.tasks.data import Labelled


def finished(folder: Path, seed: int, options: dict[str, Any], parts: ClipParts) -> dict | None:
    """What a finished seed was found to reach, or None if it is not finished.

    Raises ValueError if it was trained with other options or on another CLIP.
    """
    path = folder / f"seed-{seed}.json"
    if not path.is_file():
        return None
    row = read_json(path)
    before = row.get("options", {})
    if before != options:
        names = sorted(n for n in before | options if before.get(n) != options.get(n))
        raise ValueError(
            f"{folder} holds a head trained with another {', '.join(names)} "
            f"({[before.get(n) for n in names]}, now {[options.get(n) for n in names]}); "
            "--overwrite trains it anew, another --out keeps it"
        )
    load_head(folder, parts)
    return row


def checkpoint_of(folder: Path, options: dict[str, Any]) -> Path:
    """Where a run with these options keeps its state, so that no other run goes on from it."""
    key = hashlib.sha256(plain_key(options).encode()).hexdigest()[:8]
    return folder / f"checkpoint-{key}.safetensors"


@torch.no_grad()
def measure(parts: ClipParts, classifier: Classifier, test: Labelled, batch: int = 64) -> float:
    """Accuracy (0 to 1) on labelled pictures."""
    logits = []
    for start in range(0, len(test), batch):
        pictures = test.pictures(range(start, min(start + batch, len(test))))
        features = parts.image_features(pictures, classifier.prompts, cls_only=True)
        logits.append(classifier.logits(features).cpu())
    return accuracy(torch.cat(logits), torch.from_numpy(test.labels))


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds, by split."""
    found = {}
    for split in ("base", "novel"):
        values = torch.tensor([row[split] for row in rows if split in row], dtype=torch.float64)
        if len(values):
            spread = values.std().item() if len(values) > 1 else 0.0
            found[split] = {"mean": round(values.mean().item(), 4), "std": round(spread, 4)}
    return found
