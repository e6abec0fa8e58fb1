"""Model cards: a folder's README.md, rendered from its JSON files and nothing else.

Knows the templates in hub_cards/, which kind of folder wants which, and the Hub's card metadata.
A figure that is not in metrics.json is left out of the card, never made up. Knows nothing of
tensors or of the network.
"""

import re
import sys
from pathlib import Path
from typing import Any

from sae.storage import SEAL, check_seal, read_json, replacing

TEMPLATES = Path(__file__).resolve().parents[1] / "hub_cards"
PICTURES = {
    "exemplars.webp": "The strongest images of some concepts, dark where they do not fire",
    "curves.png": "Training curves",
    "curves.svg": "Training curves",
}
"""Pictures that a card shows if they lie in the folder."""
SEALED = ("metrics.json", "training.json")
"""Files whose seal is missed where there is none."""
PERCENTAGES = ("dead_fraction",)
"""Figures that are shares of one, shown in per cent; anything outside 0 … 1 is refused."""
ENOUGH_TOKENS = 10_000
"""Tokens from which on a share of latents that never fired tells anything."""
LABELS = {
    "fvu": "variance left unexplained (FVU)",
    "explained_variance": "variance explained",
    "l0": "active latents per token (L0)",
    "dead_fraction": "latents that never fired",
    "accuracy": "accuracy",
    "base_accuracy": "accuracy, base classes",
    "novel_accuracy": "accuracy, novel classes",
}
LICENCES: tuple[str, ...] = (
    "mit",
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "isc",
    "unlicense",
    "cc0-1.0",
)
LICENCES += ("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "mpl-2.0")
LICENCES += ("gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "openrail", "other", "unknown")
"""Licences that the Hub has a word for; a card says any other in its text."""
OURS = "library_name: patchlens"
"""The line that every card has; a README.md without it is somebody's own."""
_SHARES = (*PERCENTAGES, "explained_variance", "accuracy", "base_accuracy", "novel_accuracy")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def kind_of(folder: Path) -> str:
    """Which card a folder wants: "sae", "index" or "head"; ValueError if it is no artifact."""
    config = _json(folder / "config.json")
    if "architecture" in config and "d_sae" in config:
        return "sae"
    if "kind" in config:
        return "head"
    if (folder / "concepts" / "index.json").is_file():
        return "index"
    raise ValueError(
        f"{folder}: found neither the config.json of an SAE or a head nor concepts/index.json. Give "
        "the folder of an artifact."
    )


def write_card(folder: str | Path, repo_id: str | None = None) -> None:
    """Render README.md of an artifact's folder.

    ValueError if the folder is no artifact, if a figure cannot be what it says, or if there is a
    README.md that is no card.
    """
    folder = Path(folder)
    path = folder / "README.md"
    text = render(folder, repo_id)
    if path.is_file() and OURS not in path.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(
            f"{path} is not a card that PatchLens made; it would be lost. Move it away, or add the "
            f"line '{OURS}' to it."
        )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(folder: Path, repo_id: str | None = None) -> str:
    """The card's text, for the SAE, concept index or head that lies in `folder`.

    ValueError if the folder is none of these, or its JSON files are not what they should be.
    """
    import jinja2

    kind = kind_of(folder)
    try:
        return template(f"{kind}.md").render(_words(kind, folder, repo_id))
    except (TypeError, AttributeError, KeyError, jinja2.TemplateError) as error:
        raise ValueError(
            f"{folder}: its JSON files lack something that the card needs ({error}). Save the "
            "artifact again."
        ) from error


def _words(kind: str, folder: Path, repo_id: str | None) -> dict[str, Any]:
    """What the templates speak of."""
    config, metrics = _json(folder / "config.json"), _json(folder / "metrics.json")
    training, index = _json(folder / "training.json"), _json(folder / "concepts" / "index.json")
    id_ = str((config.get("backbone") or {}).get("id", ""))
    local, shown = is_local(config, training), figures(metrics)
    backbone = Path(id_).expanduser().resolve().name if local else id_
    commands: dict[str, list[str]] = {}
    for row in shown:
        if row["command"]:
            commands.setdefault(without_folders(row["command"]), []).append(row["label"])
    if local and "/" in id_:
        commands = {text.replace(id_, backbone): rows for text, rows in commands.items()}
    heads = folder.glob("heads/**/config.json")
    return {
        "card_data": _metadata(kind, config, training, shown, repo_id),
        "config": config,
        "backbone": backbone,
        "local": local,
        "figures": shown,
        "commands": commands,
        "metrics": metrics,
        "training": training,
        "dataset": without_folders(str(training.get("dataset") or "")),
        "index": index,
        "index_data": without_folders(str(index.get("data", ""))),
        "heads": sorted(path.parent.relative_to(folder / "heads").as_posix() for path in heads),
        "pictures": [(name, text) for name, text in PICTURES.items() if (folder / name).is_file()],
        "repo_id": repo_id or "PATH_OR_HUB_ID",
    }


def without_folders(text: str) -> str:
    """`text` with the last part alone of every path that starts at a root or at home."""
    return re.sub(r"(?<![^\s'\"=])(?:~|[A-Za-z]:)?[/\\](?:[^\s'\"]*[/\\])?(?=[^\s'\"])", "", text)


def is_local(config: dict[str, Any], training: dict[str, Any]) -> bool:
    """Whether the backbone is a folder of whoever made this, so that nobody else has its id."""
    id_ = str((config.get("backbone") or {}).get("id", "bundled"))
    if (
        id_.startswith(("hf-hub:", "timm/"))
        or id_ in ("bundled", "photos")
        or base_model(config, training)
    ):
        return False
    # a backbone from the Hub has its commit; where none was trained on, a Hub id is believed
    return "steps" in training or not _HUB_ID.fullmatch(id_) or Path(id_).exists()


def figures(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a card's table: every known figure of metrics.json, with its evidence.

    A share of dead latents from too few tokens has the value None. Shares are checked to lie in 0 … 1
    and L0 not to be negative; ValueError otherwise. A worse reconstruction than the mean explains less
    than nothing, without limit.
    """
    rows, metrics = [], _flat(metrics)
    for name, label in LABELS.items():
        value = metrics.get(name)
        evidence = metrics.get("evidence", {}).get(name, {})
        n_tokens = evidence.get("n_tokens")
        too_few = (
            isinstance(n_tokens, int) and n_tokens < ENOUGH_TOKENS
        )  # written down by older runs
        if name in metrics and name in PERCENTAGES and (value is None or too_few):
            rows.append({"name": name, "label": label, "value": None, "text": "not measured"})
            rows[-1] |= _sample(evidence)
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        most = 1 if name in _SHARES else sys.float_info.max
        least = -sys.float_info.max if name == "explained_variance" else 0
        if not least <= value <= most:
            what = "a share between 0 and 1" if most == 1 and least == 0 else "a number from 0 on"
            what = "a share of at most 1" if name == "explained_variance" else what
            raise ValueError(f"metrics.json: {name} = {value!r}; expected {what}. Measure again.")
        text = f"{value:.2%}" if name in _SHARES else f"{value:.4g}"
        row: dict[str, Any] = {"name": name, "label": label, "value": value, "text": text}
        rows.append(row | _sample(evidence))
    return rows


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """A head's accuracies, {"accuracy": {"base": {"mean", …}, "novel": …}}, as single figures."""
    splits = metrics.get("accuracy")
    if not isinstance(splits, dict):
        return metrics
    accuracies = {f"{name}_accuracy": row["mean"] for name, row in splits.items() if "mean" in row}
    sample = {"data": metrics.get("task"), "command": metrics.get("command", "")}
    return {**accuracies, "evidence": dict.fromkeys(accuracies, sample)}


def _sample(evidence: dict[str, Any]) -> dict[str, str]:
    parts = [str(evidence["data"])] if evidence.get("data") else []
    for key, word in (("n_images", "images"), ("n_tokens", "tokens")):
        if isinstance(evidence.get(key), int):
            parts.append(f"{evidence[key]:,} {word}")
    tokens = parts[-1] if parts and parts[-1].endswith(" tokens") else ""
    command = str(evidence.get("command", ""))
    return {"sample": "; ".join(parts), "command": command, "n_tokens": tokens}


def base_model(config: dict[str, Any], training: dict[str, Any] | None = None) -> str | None:
    """The backbone's Hub id, or None if it is bundled, a folder, or cannot be told from one.

    A backbone that came from the Hub has the commit it came from; that of a converted SAE
    (training.json has its `source`) is what the other library said.
    """
    where = config.get("backbone") or {}
    id_ = str(where.get("id", "")).removeprefix("hf-hub:")
    from_hub = bool(_COMMIT.fullmatch(str(where.get("revision")))) or "source" in (training or {})
    return id_ if from_hub and _HUB_ID.fullmatch(id_) and not Path(id_).exists() else None


def _metadata(
    kind: str, config: dict, training: dict, shown: list[dict[str, Any]], repo_id: str | None
) -> str:
    """The card's YAML front matter."""
    from huggingface_hub import EvalResult, ModelCardData

    data = re.match(r"hf:([A-Za-z0-9][\w.\-]*/[\w.\-]+)", str(training.get("dataset", "")))
    tags = {
        "sae": ["sparse-autoencoder", "vision", "mechanistic-interpretability"],
        "index": ["sparse-autoencoder", "vision", "concepts"],
        "head": ["prompt-tuning", "vision", "image-classification"],
    }[kind]
    more = config.get("architecture") if kind == "sae" else config.get("kind")
    base = base_model(config, training)
    licence = str(training.get("license", "")).lower()
    name = (repo_id or "sparse-autoencoder").rpartition("/")[2]
    results = [
        EvalResult(
            task_type="image-classification" if kind == "head" else "feature-extraction",
            dataset_type=data[1] if data else "images",
            dataset_name=row["sample"].partition(";")[0] or "held-out images",
            metric_type=row["name"],
            metric_name=f"{row['label']} in {row['n_tokens']}"
            if row["name"] in PERCENTAGES and row["n_tokens"]
            else row["label"],
            metric_value=row["value"],
        )
        for row in shown
        if row["value"] is not None
    ]
    return ModelCardData(
        library_name="patchlens",
        license=licence if licence in LICENCES else None,
        base_model=base,
        base_model_relation="adapter" if base else None,
        datasets=[data[1]] if data else None,
        tags=[*tags, *([more] if isinstance(more, str) else [])],
        pipeline_tag="image-classification" if kind == "head" else "image-feature-extraction",
        model_name=name if results else None,
        eval_results=results or None,
    ).to_yaml()


def template(name: str) -> Any:
    """A template of hub_cards/."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, {} if there is none; what was sealed is compared, as are figures and their origin."""
    content = read_json(path) if path.is_file() else {}
    if content and (SEAL in content or path.name in SEALED):
        check_seal(path, content)
    return {key: value for key, value in content.items() if key != SEAL}
