"""sae-for-vlm's checkpoints (Pach et al. 2025): dictionary_learning's files in telling folders.

    {variant}/imagenet_train_activations_{model}_{layer}_{point}_{variant}/trainer_0/
        config.json   checkpoints/ae_100000.pt

config.json names neither backbone nor layer: only the folder does, and it need not be there: the two
classes differ by the names of their tensors, and the variant says batch_top_k or matroyshka. The
checkpoints take raw activations (the training's scaling was folded in at save).
"""

import re
from pathlib import Path

from sae.config import TokenPolicy
from sae.errors import ArtifactError
from sae.interop import dictionary_learning
from sae.interop.foreign import Reading
from sae.interop.source import Hints, Source, tensors_of

NAME = "sae_for_vlm"
TITLE = "sae-for-vlm: …/trainer_0/checkpoints/ae_100000.pt"
BACKBONES = {
    "clip-vit-large-patch14-336": "openai/clip-vit-large-patch14-336",
    "siglip-so400m-patch14-384": "google/siglip-so400m-patch14-384",
}
_FOLDER = re.compile(
    r"(?P<data>\w+?)_(?:train|val)_activations_(?P<model>[\w.-]+?)_(?P<layer>-?\d+)"
    r"_(?P<point>post_mlp_residual|post_projection)_"
)


def detect(source: Source) -> bool:
    return _named(source) is not None and dictionary_learning.weights(source) is not None


def read(source: Source, hints: Hints) -> Reading:
    path = dictionary_learning.weights(source)
    named = _named(source)
    trainer = source.folder.parent if source.folder.name == "checkpoints" else source.folder
    there = any((folder / "config.json").is_file() for folder in (source.folder, trainer))
    if named is not None and not there:
        result = _alone(source, path or source.folder / dictionary_learning.FILES[0], named)
    else:
        result = dictionary_learning.read(source.at(path) if path else source, hints)
    if named is not None and named["point"] == "post_mlp_residual":
        result.backbone = BACKBONES.get(named["model"])
        result.layer = int(named["layer"])
        result.hook = named["point"]
        result.found.append(f"folder says {named['model']}, layer {result.layer}")
    elif named is not None:
        result.found.append("folder says post_projection: the projected image vector, not a layer")
    result.tokens, why = _tokens(source, named)
    if hints.tokens is None:
        result.assumed.append(why)
    return result


def _alone(source: Source, path: Path, named: re.Match[str]) -> Reading:
    """A checkpoint without config.json: its names and its folder say what it is."""
    made = dictionary_learning.sae_of(path, tensors_of(source, path, "ae.pt"))
    kind = "matryoshka" if re.search("matr(oy|yo)shka", named.string) else "batch_topk"
    if made.architecture != kind:
        expected = f"one of {kind}, as the folder {named.string[:60]!r} says"
        raise ArtifactError(path, f"weights of {made.architecture}", expected)
    told = f"{kind} with k = {made.k}, weights {path.name}, no config.json"
    return Reading(made, found=[told], weights=path)


def _tokens(source: Source, named: re.Match[str] | None) -> tuple[TokenPolicy, str]:
    """The token policy of an SAE in this place, and the reason for the report."""
    if any(part.startswith("random_k") for part in source.path.absolute().parts):
        return "all", "all tokens: the folder says random_k, random tokens of every image"
    if named is not None and named["model"].startswith("siglip"):
        return "patches", (
            "every patch, though this SAE saw the first patch token of each image alone: SigLIP has "
            "no CLS token, and the training code took token 0. Other patches are new to it"
        )
    return "cls", "CLS token only, as in the paper"


def _named(source: Source) -> re.Match[str] | None:
    for part in reversed(source.path.absolute().parts):
        if match := _FOLDER.search(part):
            return match
    return None
