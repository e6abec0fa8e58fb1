"""Putting things on the Hub: a folder for a Gradio Space, and the push of a finished run.

    python training/publish.py space OUT [--sae ID]       assemble OUT; upload it as a Space yourself
    python training/publish.py push FOLDER user/name      render the card and push, or take it up again

Knows which files a Space needs and how its versions are pinned. Knows nothing of training.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from sae import artifact, cards, hub
from sae.interop import presets
from sae.storage import check_writable, read_json, read_sealed, write_sealed
from sae.terminal import command, described

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("LICENSE", "NOTICE")
ZERO_GPU_CHOOSES = {"torch": ">=2.11", "torchvision": ""}
"""Versions that a ZeroGPU Space leaves open: it runs those that its platform was built for."""
PYTHON = "3.11"
ARTIFACT = "artifact"


def space(out: Path, sae: str = "bundled", *, zero_gpu: bool = False) -> list[str]:
    """Fill `out` with everything a Space needs; returns the names of its top-level entries.

    A local SAE's files are copied, one of the Hub is pinned to its commit of now. ValueError for an
    SAE whose backbone the Space could not get, and for a folder that holds anything but an earlier
    Space; HubError if the Hub does not tell the commit.
    """
    if out.exists() and any(out.iterdir()) and not (out / "sae" / "ui").is_dir():
        raise ValueError(f"{out} is not empty and no Space; give another folder.")
    package = Path(hub.__file__).parent
    check_writable(
        out, sum(path.stat().st_size for path in package.rglob("*") if path.is_file()), "OUT"
    )
    pinned = _pinned(sae)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("sae", ARTIFACT):
        shutil.rmtree(out / name, ignore_errors=True)
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(package, out / "sae", ignore=junk)
    for name in COPIED:
        _write(out / name, _own_text(name, f"licenses/{name}"))
    app = (cards.TEMPLATES / "space_app.py").read_text(encoding="utf-8")
    if pinned == ARTIFACT:
        for name in hub.pushed_files(sae):
            (out / ARTIFACT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(sae) / name, out / ARTIFACT / name)
    _write(out / "app.py", app.replace('SAE = "bundled"\n', f"SAE = {json.dumps(pinned)}\n"))
    open_versions = ZERO_GPU_CHOOSES if zero_gpu else {}
    _write(out / "requirements.txt", requirements(open_versions))
    words = {"title": "PatchLens", "gradio": version("gradio"), "python": PYTHON}
    words["sae"] = Path(sae).resolve().name if pinned == ARTIFACT else pinned
    _write(out / "README.md", cards.template("space.md").render(words))
    return sorted(path.name for path in out.iterdir())


def _pinned(sae: str) -> str:
    """What the Space's app opens: ARTIFACT for a local SAE, else an id that means one commit."""
    if presets.is_preset(sae):
        preset = presets.find(sae)
        pinned = presets.PREFIX + sae.removeprefix(presets.PREFIX).partition("@")[0]
        return pinned if preset.repo == "bundled" else f"{pinned}@{hub.commit_of(preset.repo)}"
    if sae == "bundled":
        return sae
    folder = Path(sae)
    if not folder.is_dir():
        repo_id, _, revision = sae.partition("@")
        return f"{repo_id}@{hub.commit_of(repo_id, revision=revision or None)}"
    cfg, _ = artifact.read(folder)
    training = folder / "training.json"
    origin = read_sealed(training) if training.is_file() else {}
    if cards.is_local(read_json(folder / artifact.CONFIG), origin):
        raise ValueError(
            f"{sae} needs the backbone {cfg.backbone.id}, a folder of this machine, so the Space "
            "could not start. Put that on the Hub, write its id and commit into config.json, and "
            "delete the entry content_sha256 there."
        )
    return ARTIFACT


def requirements(open_versions: Mapping[str, str]) -> str:
    """What the page needs, a line each, pinned to what is installed here, but for those whose
    versions are given."""
    lines = []
    for line in _own_text("requirements.txt", "METADATA").splitlines():
        line = line.removeprefix("Requires-Dist: ")
        pin = re.match(r"([A-Za-z0-9_.\-]+)[<>=]=?[^;:]*$", line)
        if pin is None:
            continue
        if pin[1] in open_versions:
            lines.append(pin[1] + open_versions[pin[1]])
            continue
        try:
            lines.append(f"{pin[1]}=={version(pin[1]).partition('+')[0]}")
        except PackageNotFoundError as error:
            raise ValueError(f"{pin[1]} is not installed; run `make test` once first.") from error
    return "\n".join(lines) + "\n"


def _own_text(name: str, installed: str) -> str:
    """A file of the repository's root, or of the installed package's metadata."""
    path = ROOT / name
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return distribution("patchlens").read_text(installed) or ""


@command
def main(argv: list[str]) -> None:
    """Run the command line `argv` (default: this process's)."""
    parser = argparse.ArgumentParser(description=described("Publish on the Hub.", "publish"))
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("space", help="assemble a folder for a Gradio Space")
    make.add_argument("out", type=Path)
    make.add_argument(
        "--sae", default="bundled", help="Hub id, preset or folder (default: %(default)s)"
    )
    make.add_argument(
        "--zero-gpu", action="store_true", help="let ZeroGPU's platform choose the torch it runs"
    )
    push = commands.add_parser("push", help="push a run's folder, or take a push up again")
    push.add_argument("folder", type=Path)
    push.add_argument("repo_id")
    push.add_argument("--private", action="store_true", default=None)
    push.add_argument("--revision")
    push.add_argument("--license", help="of what is pushed, for its card, such as mit")
    options = parser.parse_args(argv)
    if options.command == "space":
        names = space(options.out, options.sae, zero_gpu=options.zero_gpu)
        said = f"{options.out}: {', '.join(names)}\nUpload it with:\n  hf upload user/name "
        said += f"{options.out} . --repo-type space"
    else:
        if options.folder.is_dir():
            check_writable(options.folder, option="folder")
        if options.license:
            _add_licence(options.folder, options.license)
        said = "pushed to " + hub.push_folder(
            options.folder, options.repo_id, private=options.private, revision=options.revision
        )
    sys.stdout.write(said + "\n")


def _add_licence(folder: Path, licence: str) -> None:
    cards.kind_of(folder)  # nothing is written into a folder that is no artifact
    path = folder / "training.json"
    write_sealed(path, {**(read_sealed(path) if path.is_file() else {}), "license": licence})


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
