"""The app's options, from the command line or from the environment, and what they load.

Knows: names and defaults of options, and which models they stand for. Does not know: Gradio.
Imports nothing heavy until `load` is called, so that `--help` answers at once.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder

PORTS = range(1, 65536)


@dataclass(frozen=True)
class Options:
    """What `python app.py` was asked for."""

    backbone: str | None
    """Backbone id; None means the one that the SAE was made for."""
    sae: str
    device: str
    host: str
    port: int | None
    """None means the first free port from 7860 on."""
    share: bool


class Loaded(NamedTuple):
    """The models behind the page."""

    backbone: "Backbone"
    sae: "SparseAutoencoder"
    index: "ConceptIndex | None"
    metrics: dict[str, object] | None


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Options of a command line; PATCHLENS_* variables give the defaults."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="PatchLens: see which concepts a vision transformer finds in each patch.",
        epilog="Every option has a variable, PATCHLENS_BACKBONE … PATCHLENS_SHARE, for Spaces.",
    )
    default = environment.get
    parser.add_argument(
        "--backbone",
        metavar="ID",
        default=default("PATCHLENS_BACKBONE") or None,
        help="Hub id, folder or 'bundled' (default: the one that the SAE was made for)",
    )
    parser.add_argument(
        "--sae",
        metavar="ID_OR_DIR",
        default=default("PATCHLENS_SAE") or "bundled",
        help="Hub id or folder of an SAE artifact, or 'bundled' (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default=default("PATCHLENS_DEVICE") or "auto",
        help="cpu, cuda, cuda:1, mps or auto (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=default("PATCHLENS_PORT") or None,
        help="port to listen on (default: the first free one from 7860 on)",
    )
    parser.add_argument(
        "--share",
        action="store_true",
        default=(default("PATCHLENS_SHARE") or "").lower() in ("1", "true", "yes"),
        help="also open a public link through Gradio's servers",
    )
    found = parser.parse_args(arguments)
    on_space = bool(default("SPACE_ID"))
    return Options(
        backbone=found.backbone,
        sae=found.sae,
        device=found.device,
        host="0.0.0.0" if on_space else "127.0.0.1",
        port=7860 if on_space and found.port is None else found.port,
        share=found.share,
    )


def load(options: Options) -> Loaded:
    """Load the SAE, its backbone, its concept index and its figures.

    An SAE without `concepts/` gets no index; an SAE without metrics.json shows no figures. Errors
    are those of the loaders: each names what was found, what was expected and the next step.
    """
    from sae.backbones import Backbone
    from sae.model import SparseAutoencoder

    device = _device(options.device)
    sae = SparseAutoencoder.from_pretrained(options.sae, device=device)
    where = sae.cfg.backbone
    chosen = options.backbone or where.id
    revision = where.revision if chosen == where.id and chosen != "bundled" else None
    backbone = Backbone.from_pretrained(chosen, revision=revision, device=device)
    return Loaded(backbone, sae, _index(options.sae), _metrics(options.sae))


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) not in PORTS:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1 to 65535")
    return int(text)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {name}: {str(error).splitlines()[0]}; use cpu, or cuda on a machine with a GPU"
        ) from error
    return name


def _index(sae: str) -> "ConceptIndex | None":
    from sae.concepts.index import ConceptIndex
    from sae.storage import read_json

    found = _file(sae, "concepts/index.json")
    if found is None:
        return None
    index = ConceptIndex.from_pretrained(sae)
    weights = read_json(found.parents[1] / "config.json")["sha256"]["sae_weights.safetensors"]
    if index.sae_sha256 not in ("", weights):
        raise ValueError(
            f"the concept index in {found.parent} describes SAE weights {index.sae_sha256[:12]}, the "
            f"weights beside it are {weights[:12]}; build the index again for them, or remove it"
        )
    return index


def _metrics(sae: str) -> dict[str, object] | None:
    from sae.storage import read_json

    found = _file(sae, "metrics.json")
    return None if found is None else read_json(found)


def _file(sae: str, name: str) -> Path | None:
    """One optional file of an artifact, or None where there is none."""
    from sae.hub import local_folder

    try:
        path = local_folder(sae, files=("config.json", name)) / name
    except OSError:
        return None
    return path if path.is_file() else None
