"""Convert an SAE of another library: `patchlens convert SOURCE --to DIR`.

Knows the command line, the report, the self-check, and with --images the evidence of real activations:
an SAE that was misread, or that is given another backbone, layer or scaling than its own, rebuilds them
worse than their mean does. What fails is not written. A program, so it may import whatever it
needs; the formats themselves are the package's other files. SOURCE is a folder, a file, a Hub id or
a preset. DIR becomes artifact format 1, which SAELens 6 opens as well, or with --write visaebench a
folder in that library's words.
"""

import argparse
import sys
from functools import partial
from pathlib import Path, PurePosixPath

from sae import artifact, hub, interop
from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.config import TOKEN_POLICIES
from sae.images import open_image
from sae.interop import Conversion, Hints, presets, visaebench
from sae.interop.check import compare
from sae.interop.foreign import Reading, own
from sae.interop.source import PICKLES, read_norm
from sae.metrics.reconstruction import ReconstructionMeter
from sae.model import SparseAutoencoder
from sae.storage import check_writable, read_json, write_sealed
from sae.terminal import command

_MOST_WEIGHTS = 8
MAX_FVU = 0.9
"""Above it a reconstruction is no better than the mean activation, and nothing was read."""
L0_FACTOR = 5
"""How far the active latents of a token may be from the k that the files state."""
_MOST_PICTURES = 64
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_KEPT = (*PICKLES, ".safetensors", ".json")


@command
def main(argv: list[str]) -> int:
    """Run the command line `argv`; returns the exit status."""
    options = _parser().parse_args(argv)
    if options.list:
        _print_list()
        return 0
    if options.source is None or options.to is None:
        print("error: give SOURCE and --to DIR, or --list", file=sys.stderr)
        return 2
    return _convert(options)


def _convert(options: argparse.Namespace) -> int:
    out = Path(options.to)
    if any((out / name).exists() for name in artifact.REQUIRED_FILES):
        raise ValueError(f"{out} already holds an SAE; give another --to.")
    check_writable(out, option="--to")
    conversion = _read(options)
    check_writable(out, sum(tensor.nbytes for tensor in conversion.tensors.values()), "--to")
    sae = SparseAutoencoder._from_weights(conversion.cfg, conversion.tensors)
    evidence = _evidence(sae, options)
    if options.write == "visaebench":
        visaebench.write(out, conversion.cfg, conversion.tensors)
    else:
        sae.save_pretrained(out)
        write_sealed(out / "training.json", _origin(options.source, conversion))
        sae = SparseAutoencoder.from_pretrained(out)
    _print_report(conversion, out)
    status = _self_check(conversion, sae)
    print(f"evidence    {evidence}")
    return status


def _evidence(sae: SparseAutoencoder, options: argparse.Namespace) -> str:
    """How the SAE rebuilds what its backbone makes of the pictures; ValueError where it does not."""
    if options.images is None:
        return "not compared with real activations: give --images DIR, of pictures of its kind"
    where = sae.cfg.backbone
    backbone = Backbone.of(where)
    if backbone.d_model != sae.cfg.d_in:
        raise ValueError(
            f"{where.id} has activations of width {backbone.d_model}, this SAE reads {sae.cfg.d_in}: "
            "it was trained on another backbone; give --backbone ID."
        )
    view, meter = TokenView(backbone, where.tokens), ReconstructionMeter(sae)
    files = sorted(p for p in Path(options.images).rglob("*") if p.suffix.lower() in _PICTURES)
    for path in files[:_MOST_PICTURES]:
        meter.update(view.read(backbone.activations([open_image(path)], where.layer)))
    if not files:
        raise ValueError(f"{options.images} holds no pictures ({', '.join(_PICTURES)}).")
    seen = meter.result()
    told = f"on {seen.n_tokens:,} tokens of {where.id}, layer {where.layer}: FVU {seen.fvu:.3f}"
    told = f"{told}, L0 {seen.l0:.1f}"
    k = sae.cfg.k
    far = k is not None and not k / L0_FACTOR <= seen.l0 <= k * L0_FACTOR
    if far or not seen.l0 or seen.fvu > MAX_FVU:
        expected = f"FVU below {MAX_FVU}" + (f" and L0 near {k}" if k else "")
        raise ValueError(
            f"evidence FAILED {told}; expected {expected}. The SAE belongs to another backbone or layer, "
            "its inputs were scaled (--norm), or the pictures are not of its kind. Nothing was written."
        )
    return told


def _origin(source: str, conversion: Conversion) -> dict[str, str]:
    """What training.json says of a converted SAE."""
    local = Path(source)
    name = local.name if local.exists() else source
    content = {"source": name, "source_format": conversion.format}
    if not local.exists() and presets.is_preset(source):
        preset = presets.find(source)
        content |= {"source": preset.repo, "license": preset.license, "citation": preset.citation}
    return content


def _read(options: argparse.Namespace) -> Conversion:
    """The SAE that SOURCE means, wherever it lies."""
    norm = None if options.norm is None else read_norm(options.norm)
    where = (options.backbone, options.layer, options.tokens)
    hints = Hints(options.format, *where, options.k, norm)
    path = Path(options.source)
    if not path.exists() and presets.is_preset(options.source):
        return presets.load(options.source, revision=options.revision, norm=norm)
    if not path.exists():
        path = _download(options)
    config = path / artifact.CONFIG
    if options.format is None and config.is_file() and "format" in read_json(config):
        cfg, tensors = artifact.read(path)
        return Conversion("patchlens", cfg, tensors, Reading(own(cfg, tensors)))
    return interop.read(path, hints)


def _download(options: argparse.Namespace) -> Path:
    """Weights and configs of a Hub repository, or of the folder of it that --subfolder names."""
    inside = PurePosixPath(options.subfolder or "")
    chosen = partial(_chosen, options.source, inside)
    return hub.snapshot(options.source, chosen, revision=options.revision) / inside


def _chosen(source: str, inside: PurePosixPath, names: list[str]) -> list[str]:
    """Of a repository's files, the weights in `inside` and the configs beside and above them."""
    there = [PurePosixPath(name) for name in names]
    below = [path for path in there if path.is_relative_to(inside) and path.name.endswith(_KEPT)]
    weights = [path for path in below if path.suffix != ".json"]
    if not weights or len(weights) > _MOST_WEIGHTS:
        homes = sorted({str(path.parent) for path in weights})
        choice = homes if len(homes) > 1 else sorted(map(str, weights))
        raise ValueError(
            f"{source} has {len(weights)} weights files under {str(inside)!r}; give "
            f"--subfolder, for example one of {choice[:8]}."
        )
    folders = {path.parent for path in weights}
    folders |= {folder.parent for folder in folders if folder.name == "checkpoints"}
    configs = [path for path in there if path.suffix == ".json" and path.parent in folders]
    return list(dict.fromkeys(map(str, (*below, *configs))))


def _print_report(conversion: Conversion, out: Path) -> None:
    cfg, where = conversion.cfg, conversion.cfg.backbone
    reader = interop.READERS.get(conversion.format)
    title = "artifact format 1" if reader is None else reader.TITLE
    print(f"format      {conversion.format}: {title}")
    print(f"SAE         {cfg.architecture}, {cfg.d_in} to {cfg.d_sae:,} latents, k {cfg.k}")
    if cfg.negative != "zero" or cfg.input_norm != "none":
        print(f"options     negative {cfg.negative}, input_norm {cfg.input_norm}")
    place = f"layer {where.layer}, tokens {where.tokens}"
    place = "image embedding" if where.tokens == "embedding" else place
    print(f"activations {where.id}, {place}")
    for line in conversion.reading.found:
        print(f"found       {line}")
    for line in conversion.reading.assumed:
        print(f"assumed     {line}")
    print(f"written     {out}")


def _self_check(conversion: Conversion, sae: SparseAutoencoder) -> int:
    """Compare what was written, read again, with the format's own equations."""
    if conversion.reading.reference is None or conversion.check is None:
        reason = (
            "it is an artifact of ours, copied" if conversion.format == "patchlens" else "see above"
        )
        print(f"self-check  could not be made: {reason}")
        return 0
    ours = lambda x: (sae.encode(x), sae(x))  # noqa: E731
    checked = compare(ours, conversion.reading.reference, dict(sae.named_parameters()))
    print(f"self-check  {'passed' if checked.passed else 'FAILED'} {checked}")
    return 0 if checked.passed else 1


def _print_list() -> None:
    print("formats:")
    for name, reader in interop.READERS.items():
        print(f"  {name:20} {reader.TITLE}")
    print("not read: " + "; ".join(interop.NOT_READ))
    print("presets (licence of the weights; of the code that trained them):")
    for preset in presets.table().values():
        print(f"  {preset.name:36} {preset.title} ({preset.license}; {preset.code_license})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="patchlens convert",
        description="Convert a published SAE to PatchLens' artifact, with a report and a self-check.",
    )
    add = parser.add_argument
    add("source", nargs="?", metavar="SOURCE", help="folder, file, Hub id or preset")
    add("--to", metavar="DIR", help="where to write")
    add("--list", action="store_true", help="list formats and presets")
    add("--format", choices=list(interop.READERS), help="default: told from the files")
    add("--backbone", metavar="ID", help="where the activations come from, if the files do not say")
    add("--layer", type=int, metavar="N", help="its layer, from 0; negative from the end")
    add("--tokens", choices=TOKEN_POLICIES, help="which tokens the SAE was trained on")
    add("--k", type=int, metavar="N", help="active latents per token, if the files do not say")
    add(
        "--norm",
        metavar="FILE",
        help="mean and std that activations were scaled by before training",
    )
    add("--images", metavar="DIR", help="pictures on which the SAE must rebuild its activations")
    add("--write", choices=("patchlens", "visaebench"), default="patchlens", help="what to write")
    add("--revision", metavar="REV", help="of a Hub repository")
    add("--subfolder", metavar="PATH", help="a folder or file of a Hub repository")
    return parser


if __name__ == "__main__":
    sys.exit(main())
