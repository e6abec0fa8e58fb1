"""Turn concepts of a picture up or down: `patchlens steer photo.jpg --edit 1234=2`.

Knows the command line; a program, so it may import whatever it needs. Prints what the model says as it is
and with the edits, and the next words that the edits make likelier.
"""

import argparse
import sys
from pathlib import Path

from sae.images import open_image
from sae.steering import Steerer
from sae.steering.edits import MODES
from sae.terminal import command


@command
def main(argv: list[str]) -> None:
    """Run the command line `argv`."""
    options = _parser().parse_args(argv)
    picture = open_image(options.picture)
    edits = dict(options.edit)
    steerer = Steerer.from_pretrained(options.vlm, options.sae, device=options.device)
    prepared = steerer.prepare(picture, options.prompt, options.answer_start)
    error_term = not options.no_error_term
    captions = steerer.generate(prepared, None, edits, options.mode, error_term)
    words = steerer.next_tokens(
        prepared,
        None,
        edits,
        mode=options.mode,
        error_term=error_term,
        answer_start=options.answer_start,
    )
    for latent, strength in edits.items():
        name = "" if steerer.index is None else steerer.index.names[latent]
        named = f" {name!r}" if name else ""
        print(f"edit        latent {latent}{named}: {options.mode} {strength:g} ({steerer.units})")
    print(f"as it is    {captions.original}")
    print(f"steered     {captions.steered}")
    print(f"change      {captions.relative_change:.1%} of the activations' norm")
    for word in words.gained:
        print(f"likelier    {word.text!r} {word.before:.3f} -> {word.after:.3f}")


def _edit(text: str) -> tuple[int, float]:
    latent, _, strength = text.partition("=")
    try:
        return int(latent), float(strength or 0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected LATENT=STRENGTH, such as 1234=2"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("picture", type=Path, metavar="PICTURE")
    add(
        "--edit",
        type=_edit,
        action="append",
        required=True,
        metavar="LATENT=STRENGTH",
        help="in multiples of the latent's own maximum where the SAE has an index; repeatable",
    )
    add("--mode", choices=MODES, default="set", help="what to do with it (default: %(default)s)")
    add("--prompt", default="describe the image", help="(default: %(default)r)")
    add("--answer-start", default="", metavar="TEXT", help="words that the answer begins with")
    add(
        "--vlm",
        default="bundled",
        metavar="ID",
        help="the model that answers (default: %(default)s)",
    )
    add("--sae", metavar="ID", help="SAE of its vision tower: a folder, a Hub id or a preset")
    add("--no-error-term", action="store_true", help="drop what the SAE cannot explain")
    add("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
