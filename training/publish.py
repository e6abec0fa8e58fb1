"""Putting things on the Hub: a folder for a Gradio Space, and the push of a finished run.

    python training/publish.py space OUT [--sae ID]       assemble OUT; upload it as a Space yourself
    python training/publish.py push FOLDER user/name      render the card and push, or take it up again

Knows which files a Space needs and how its versions are pinned. Knows nothing of training.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sae import cards, hub

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("LICENSE", "NOTICE")
NOT_IN_A_SPACE = ("accelerate", "datasets")
"""Packages of requirements.txt that only training uses."""
PYTHON = "3.11"


def space(out: Path, sae: str = "bundled") -> list[str]:
    """Fill `out` with everything a Space needs; returns the names of its top-level entries.

    A folder that holds anything but an earlier Space is refused (ValueError).
    """
    if out.exists() and any(out.iterdir()) and not (out / "page.py").is_file():
        raise ValueError(f"{out} is not empty and no Space; give another folder.")
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "sae", ignore_errors=True)
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(ROOT / "sae", out / "sae", ignore=junk)
    shutil.copyfile(ROOT / "app.py", out / "page.py")
    for name in COPIED:
        shutil.copyfile(ROOT / name, out / name)
    app = (cards.TEMPLATES / "space_app.py").read_text(encoding="utf-8")
    _write(out / "app.py", app.replace('SAE = "bundled"\n', f"SAE = {sae!r}\n".replace("'", '"')))
    _write(out / "requirements.txt", requirements(ROOT / "requirements.txt"))
    words = {"title": "PatchLens", "gradio": version("gradio"), "python": PYTHON, "sae": sae}
    _write(out / "README.md", cards.template("space.md").render(words))
    return sorted(path.name for path in out.iterdir())


def requirements(path: Path) -> str:
    """The lines of a requirements.txt that a Space needs, each pinned to what is installed here."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.match(r"([A-Za-z0-9_.\-]+)", line)
        if found is None or found[1] in NOT_IN_A_SPACE:
            continue
        try:
            lines.append(f"{found[1]}=={version(found[1]).partition('+')[0]}")
        except PackageNotFoundError as error:
            raise ValueError(f"{found[1]} is not installed; run `make test` once first.") from error
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (default: this process's)."""
    parser = argparse.ArgumentParser(prog="training/publish.py", description="Publish on the Hub.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("space", help="assemble a folder for a Gradio Space")
    make.add_argument("out", type=Path)
    make.add_argument("--sae", default="bundled", help="Hub id or preset (default: %(default)s)")
    push = commands.add_parser("push", help="push a run's folder, or take a push up again")
    push.add_argument("folder", type=Path)
    push.add_argument("repo_id")
    push.add_argument("--private", action="store_true", default=None)
    push.add_argument("--revision")
    options = parser.parse_args(argv)
    try:
        if options.command == "space":
            names = space(options.out, options.sae)
            said = f"{options.out}: {', '.join(names)}\nUpload it with:\n  hf upload user/name "
            said += f"{options.out} . --repo-type space"
        else:
            said = "pushed to " + hub.push_folder(
                options.folder, options.repo_id, private=options.private, revision=options.revision
            )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(said + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
