"""The app's options, from the command line or from the environment, and what they load.

Knows: names and defaults of options, and which lenses and models they stand for. Does not know: Gradio.
Imports nothing heavy until `lenses` or `load` is called, so that `--help` answers at once.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae.adaptation.class_compare import ClassComparison
    from sae.adaptation.compare import Comparison
    from sae.backbones import Backbone
    from sae.concepts.fit import Fit
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder
    from sae.steering import ClassSteerer, Steerer
    from sae.ui.gallery import Shown
    from sae.ui.lenses import Lens

EXPERIMENTS = Path(__file__).parents[1] / "bundled" / "steering" / "presets.json"
PORTS = range(1, 65536)
LENSES = {"photos": ("photos",), "emoji": ("bundled",), "both": ("photos", "bundled")}
"""What `--lens` may say, and the SAEs that it opens, in the order of the page's switch."""


@dataclass(frozen=True)
class Options:
    """What `python app.py` was asked for."""

    backbone: str | None
    """Backbone id; None means the one that the SAE was made for."""
    sae: str | None
    """SAE id; None means those of `lens`."""
    vlm: str | None
    """The model that the Steer tab asks; None means the bundled one where it fits, else none."""
    device: str
    host: str
    port: int | None
    """None means the first free port from 7860 on."""
    share: bool
    lens: str | None = None
    """One of LENSES, beside `sae` where that is given; None means `sae` alone, or all that came along."""


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
    comparison: "Comparison | ClassComparison | None" = None
    """The heads of the Compare tab, or the backbone's own classes."""
    vlm: str = "bundled"
    """What `steerer` loads, as the page names it in Python."""
    examples: "Sequence[Shown]" = ()
    """Pictures that are kept beside the SAE to begin with."""
    fit: "Fit | None" = None
    """What is usual for the pictures of the SAE's kind."""


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Options of a command line; PATCHLENS_* variables give the defaults."""
    parser = argparse.ArgumentParser(
        description="PatchLens: see what a vision model looks at, patch by patch.",
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
        "--lens",
        choices=LENSES,
        default=default("PATCHLENS_LENS") or None,
        help="what comes along: photographs, the emoji world, or both on one page (default: both, or "
        "--sae alone)",
    )
    parser.add_argument(
        "--sae",
        metavar="ID_OR_DIR",
        default=default("PATCHLENS_SAE") or None,
        help="Hub id or folder of an SAE artifact, the name of a published one (patchlens convert "
        "--list), 'photos' or 'bundled': a lens in place of those of --lens, beside them with --lens",
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
        lens=_one_of_lenses(parser, given.lens),
    )


def lenses(options: Options) -> "list[tuple[Lens, Options]]":
    """The lenses that `options` ask for, the page's first one first, each with what `load` opens.

    ValueError where `--backbone` or `--vlm` are given for several, and FileNotFoundError for photographs
    where they did not come along.
    """
    from sae.ui.lenses import CARRIED

    own = [options.sae] if options.sae else []
    if options.lens is None:
        carried = () if own else _usual(options)
    else:
        carried = tuple(sae for sae in LENSES[options.lens] if sae not in own)
    saes = [*own, *carried]
    if "photos" in saes and not _came_along("photos"):
        raise FileNotFoundError(
            "The lens for photographs is not part of this copy of PatchLens. Start with --lens emoji, or "
            "get a copy that has sae/bundled/photos."
        )
    if len(saes) > 1 and (options.backbone or options.vlm) and not own:
        raise ValueError("--backbone and --vlm are for one lens: say which, with --lens or --sae")
    found = []
    for sae in saes:
        lens = CARRIED.get(sae) or _lens_of(sae)
        alone = (
            options if sae in own or len(saes) == 1 else replace(options, backbone=None, vlm=None)
        )
        found.append((lens, replace(alone, sae=sae)))
    return found


def _usual(options: Options) -> tuple[str, ...]:
    """What opens if nothing is said: all that came along; other models go with the emoji world's SAE."""
    if options.backbone or options.vlm:
        return ("bundled",)
    return tuple(sae for sae in LENSES["both"] if _came_along(sae))


def _came_along(sae: str) -> bool:
    from sae.hub import BUNDLED

    return sae == "bundled" or (BUNDLED / sae / "sae" / "config.json").is_file()


def _lens_of(sae: str) -> "Lens":
    """A lens for an SAE of the person's own: called as its folder or its repository is."""
    from sae.ui.identity import public_name
    from sae.ui.lenses import CARRIED, Lens

    title = public_name(sae).split("/")[-1]
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "own"
    taken = [lens.name for lens in CARRIED.values()]
    return Lens(f"{name}-sae" if name in taken else name, title, "the SAE that you started with")


def _one_of_lenses(parser: argparse.ArgumentParser, lens: str | None) -> str | None:
    """`lens`, which the environment may have named; argparse checks no defaults."""
    if lens is not None and lens not in LENSES:
        parser.error(f"PATCHLENS_LENS is {lens!r}, expected one of {', '.join(LENSES)}")
    return lens


def load(options: Options) -> Loaded:
    """Load one lens: the SAE (the bundled one without), its backbone, its concept index and its figures.

    An SAE without `concepts/` gets no index; an SAE without metrics.json shows no figures. Errors
    are those of the loaders: each names what was found, what was expected and the next step; a Hub
    that cannot be asked whether there is an index is one.
    """
    from sae.backbones import Backbone
    from sae.concepts.fit import Fit
    from sae.concepts.index import ConceptIndex
    from sae.interop.presets import find, is_preset
    from sae.model import SparseAutoencoder
    from sae.ui.gallery import read_examples

    device = _device(options.device)
    source = options.sae or "bundled"
    if is_preset(source) and find(source).repo == "bundled":
        source = "bundled"
    sae = SparseAutoencoder.from_pretrained(source, device=device)
    where = sae.cfg.backbone
    chosen = options.backbone or where.id
    carried = chosen in ("bundled", "photos")
    revision = where.revision if chosen == where.id and not carried else None
    backbone = Backbone.from_pretrained(chosen, revision=revision, device=device).at(where.layer)
    index = ConceptIndex.beside(source)
    vlm = options.vlm or ("bundled" if chosen == "bundled" else None)
    steerer = _asked(vlm, backbone, sae, index, device)
    experiments = EXPERIMENTS if vlm == source == "bundled" else None
    comparison = _compared(chosen, backbone, sae, index)
    beside = _beside(source)
    return Loaded(
        backbone,
        sae,
        index,
        _metrics(beside),
        steerer,
        experiments,
        comparison,
        vlm or "",
        () if beside is None else read_examples(beside),
        None if beside is None else Fit.beside(beside),
    )


def _compared(
    chosen: str, backbone: "Backbone", sae: "SparseAutoencoder", index: "ConceptIndex | None"
) -> "Comparison | ClassComparison | None":
    """What the Compare tab shows: the bundled heads, else the backbone's own classes where that is exact."""
    from sae.adaptation.class_compare import ClassComparison
    from sae.adaptation.compare import Comparison

    names = index.names if index else None
    if chosen == "bundled":
        return Comparison(backbone, sae, names)
    return ClassComparison(backbone, sae, names) if ClassComparison.fits(backbone, sae) else None


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


def _beside(sae: str) -> Path | None:
    """The folder of an SAE with what is measured of it; None for one of another library, which has an
    SAE and nothing else."""
    from sae.errors import ArtifactError
    from sae.hub import local_folder
    from sae.interop.presets import artifact_of

    try:
        where = artifact_of(sae)
    except ArtifactError:
        return None
    return local_folder(where, files=["config.json"], optional=["metrics.json", "fit.json"])


def _metrics(folder: Path | None) -> dict[str, object] | None:
    from sae.storage import read_sealed

    file = None if folder is None else folder / "metrics.json"
    return read_sealed(file) if file is not None and file.is_file() else None
