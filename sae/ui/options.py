"""The app's options, from the command line or from the environment, and what they load.

Knows: names and defaults of options, and which models they stand for. Does not know: Gradio.
Imports nothing heavy until `load` is called, so that `--help` answers at once.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae.adaptation.compare import Comparison
    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder
    from sae.steering import ClassSteerer, Steerer

EXPERIMENTS = Path(__file__).parents[1] / "bundled" / "steering" / "presets.json"
PORTS = range(1, 65536)


@dataclass(frozen=True)
class Options:
    """What `python app.py` was asked for."""

    backbone: str | None
    """Backbone id; None means the one that the SAE was made for."""
    sae: str
    vlm: str | None
    """The model that the Steer tab asks; None means the bundled one where it fits, else none."""
    device: str
    host: str
    port: int | None
    """None means the first free port from 7860 on."""
    share: bool


@dataclass(frozen=True)
class Loaded:
    """The models behind the page."""

    backbone: "Backbone"
    sae: "SparseAutoencoder"
    index: "ConceptIndex | None"
    metrics: dict[str, object] | None
    steerer: "Callable[[], Steerer] | ClassSteerer | None" = None
    """Loads the model of the Steer tab, with its first question; or the backbone's own classifier."""
    experiments: Path | None = None
    """Recorded experiments of the Steer tab."""
    comparison: "Comparison | None" = None
    """The heads of the Compare tab."""
    vlm: str = "bundled"
    """What `steerer` loads, as the page names it in Python."""


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Options of a command line; PATCHLENS_* variables give the defaults."""
    parser = argparse.ArgumentParser(
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
        help="Hub id or folder of an SAE artifact, the name of a published one (patchlens convert "
        "--list), or 'bundled' (default: %(default)s)",
    )
    parser.add_argument(
        "--vlm",
        metavar="ID_OR_DIR",
        default=default("PATCHLENS_VLM") or None,
        help="image-text-to-text model to steer, whose vision tower the SAE was trained on "
        "(default: 'bundled' with the bundled SAE, else no Steer tab)",
    )
    parser.add_argument(
        "--device",
        default=default("PATCHLENS_DEVICE") or "auto",
        help="cpu, cuda, cuda:1, mps or auto (default: %(default)s)",
    )
    on_space = bool(default("SPACE_ID"))
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default=default("PATCHLENS_HOST")
        or default("GRADIO_SERVER_NAME")
        or ("0.0.0.0" if on_space else "127.0.0.1"),
        help="address to listen on; 0.0.0.0 lets other machines in (default: this machine alone)",
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
    given = parser.parse_args(arguments)
    return Options(
        backbone=given.backbone,
        sae=given.sae,
        vlm=given.vlm,
        device=given.device,
        host=given.host,
        port=7860 if on_space and given.port is None else given.port,
        share=given.share,
    )


def load(options: Options) -> Loaded:
    """Load the SAE, its backbone, its concept index and its figures.

    An SAE without `concepts/` gets no index; an SAE without metrics.json shows no figures. Errors
    are those of the loaders: each names what was found, what was expected and the next step; a Hub
    that cannot be asked whether there is an index is one.
    """
    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.interop.presets import find, is_preset
    from sae.model import SparseAutoencoder

    device = _device(options.device)
    if is_preset(options.sae) and find(options.sae).repo == "bundled":
        options = replace(options, sae="bundled")
    sae = SparseAutoencoder.from_pretrained(options.sae, device=device)
    where = sae.cfg.backbone
    chosen = options.backbone or where.id
    revision = where.revision if chosen == where.id and chosen != "bundled" else None
    backbone = Backbone.from_pretrained(chosen, revision=revision, device=device).at(where.layer)
    index = ConceptIndex.beside(options.sae)
    vlm = options.vlm or ("bundled" if chosen == "bundled" else None)
    steerer = _asked(vlm, backbone, sae, index, device)
    experiments = EXPERIMENTS if vlm == options.sae == "bundled" else None
    comparison = None
    if chosen == "bundled":
        from sae.adaptation.compare import Comparison

        comparison = Comparison(backbone, sae, index.names if index else None)
    metrics = _metrics(options.sae)
    return Loaded(backbone, sae, index, metrics, steerer, experiments, comparison, vlm or "")


def _asked(
    vlm: str | None,
    backbone: "Backbone",
    sae: "SparseAutoencoder",
    index: "ConceptIndex | None",
    device: str,
) -> "Callable[[], Steerer] | ClassSteerer | None":
    """What the Steer tab asks: a model that answers in text, else the backbone's own classifier."""
    from sae.steering import ClassSteerer

    if vlm:
        return partial(_steerer, vlm, backbone, sae, index, device)
    return ClassSteerer(backbone, sae, index=index) if backbone.classes else None


def _steerer(
    vlm: str,
    backbone: "Backbone",
    sae: "SparseAutoencoder",
    index: "ConceptIndex | None",
    device: str,
) -> "Steerer":
    from sae.backbones.vlm import VisionLanguage
    from sae.steering import Steerer

    model = VisionLanguage.from_pretrained(vlm, device=device)
    own = backbone if vlm == backbone.id else None
    return Steerer(model, model.processor, sae, index=index, backbone=own)


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


def _metrics(sae: str) -> dict[str, object] | None:
    from sae.errors import ArtifactError
    from sae.hub import local_folder
    from sae.interop.presets import artifact_of
    from sae.storage import read_sealed

    try:
        where = artifact_of(sae)
    except ArtifactError:  # of another library: it has an SAE and nothing else
        return None
    file = local_folder(where, files=["config.json"], optional=["metrics.json"]) / "metrics.json"
    return read_sealed(file) if file.is_file() else None
