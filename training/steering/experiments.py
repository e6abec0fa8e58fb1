"""Records the Steer tab's experiments worth trying: `python training/steering/experiments.py`.

Writes what the bundled LLaVA truly says to `sae/bundled/steering/presets.json`; `make world` does it
after the index. Knows the app's example pictures and the index's names. Latents are chosen as a
visitor would: concepts to turn down are the strongest in the picture with that name, a concept to
turn up is the one that "which concepts would do it?" finds to move the word most. One whose
texts do not bear out its title is left out, and said so: nothing is written by hand.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch
from PIL import Image

from sae import Steerer
from sae.backbones.tokens import TokenView
from sae.steering import Edit, Prepared, Scope, SteerRequest
from sae.steering.candidates import candidates
from sae.steering.doses import has_word
from sae.steering.edits import EVERYWHERE
from sae.storage import write_sealed
from sae.terminal import command
from sae.ui.examples import EXAMPLES, picture_of
from training.steering.protocol import index_of

BUNDLED = Path(__file__).resolve().parents[2] / "sae" / "bundled"
DESCRIBE = "describe the image"
MAX_NEW_TOKENS = 48
"""As many as the Steer tab asks for at first."""


@dataclass(frozen=True)
class Experiment:
    """An experiment: what to do with a picture, and the words that its texts must bear out."""

    title: str
    example: str
    edits: Callable[[Prepared], tuple[Edit, ...]]
    prompt: str = DESCRIBE
    gains: str = ""
    """A word that the steered text has and the original has not."""
    loses: str = ""
    """The other way round."""
    keeps: str = ""
    """A word that both have."""
    fails: bool = False
    """The text stays as it is: an edit that does not do what one would think."""


def up(
    word: str, dose: float, start: str = "a", scope: Scope = EVERYWHERE
) -> Callable[[Prepared], tuple[Edit, ...]]:
    """Set the concept that most makes `word` follow on `start` to `dose` times its maximum."""

    def edits(prepared: Prepared) -> tuple[Edit, ...]:
        guesses = candidates(
            prepared.steerer, prepared, word, DESCRIBE, answer_start=start, dose=2.0, n=8
        )
        best = next((one.edit.latent for one in guesses if one.edit.mode == "set"), None)
        if best is None:
            raise ValueError(f"no concept turned up makes {word!r} likelier")
        return (Edit(best, "set", dose, scope=scope),)

    return edits


def down(
    name: str, dose: float, n: int = 1, *, local: bool = False
) -> Callable[[Prepared], tuple[Edit, ...]]:
    """Set the picture's `n` strongest concepts of that name to `dose` times their maximum,
    everywhere, or (`local`) on the patches on which they fire."""

    def edits(prepared: Prepared) -> tuple[Edit, ...]:
        latents = strongest(prepared, name)[:n]
        where = patches_of(prepared, latents) if local else EVERYWHERE
        return tuple(Edit(latent, "set", dose, scope=where) for latent in latents)

    return edits


def swap(old: str, new: str, dose: float, n: int = 1) -> Callable[[Prepared], tuple[Edit, ...]]:
    """Turn `old` down to minus its maximum and `new` up to `dose`, on the patches of `old`."""

    def edits(prepared: Prepared) -> tuple[Edit, ...]:
        lowered = down(old, -1.0, n, local=True)(prepared)
        return (*lowered, *up(new, dose, scope=lowered[0].scope)(prepared))

    return edits


def background(old: str, new: str, dose: float, start: str) -> Callable:
    """Turn `new` up on the patches that show `old`, and switch three concepts of `old` off."""

    def edits(prepared: Prepared) -> tuple[Edit, ...]:
        lowered = down(f"{old} background", 0.0, 3)(prepared)
        where = patches_of(prepared, [lowered[0].latent])
        return (*up(new, dose, start, where)(prepared), *lowered)

    return edits


def square(top: int, left: int, size: int = 5, columns: int = 12) -> Scope:
    """A square of patches."""
    places = range(size)
    return Scope(
        "region", patches=tuple((top + r) * columns + left + c for r in places for c in places)
    )


EXPERIMENTS = (
    Experiment("Tulip, become a cat", "tiger", up("cat", 1.0), gains="cat", loses="tulip"),
    Experiment(
        "A bus in the corner", "pizza", up("bus", 8.0, scope=square(1, 7)),
        gains="bus", keeps="pizza",
    ),
    Experiment("Take the tiger out", "tiger", down("tiger", -1.0, local=True), loses="tiger"),
    Experiment("A dog for the cat", "pizza", swap("cat", "dog", 4.0), gains="dog", loses="cat"),
    Experiment(
        "From the desert into the sea", "camel",
        background("sand", "water", 1.0, "a camel and a cactus"),
        gains="water", loses="sand", keeps="camel",
    ),
    Experiment(
        "Is there a cat?", "tiger", up("cat", 2.0), prompt="is there a cat ?",
        gains="yes", loses="no",
    ),
    Experiment("Off is not enough", "sailboat", down("duck", 0.0), keeps="duck", fails=True),
    Experiment("Far too much cat", "tiger", up("cat", 4.0), gains="cat", loses="grass"),
)  # fmt: skip


def strongest(prepared: Prepared, name: str) -> list[int]:
    """Concepts of that name that fire, by their sum over the picture's tokens; ValueError if none."""
    code, names = prepared.activations.code, index_of(prepared.steerer).names
    total = torch.zeros(len(names)).index_add(0, code.indices.flatten(), code.values.flatten())
    order = total.argsort(descending=True).tolist()
    firing = [latent for latent in order if names[latent] == name and total[latent] > 0]
    if not firing:
        raise ValueError(f"no concept named {name!r} fires in this picture")
    return firing


def patches_of(prepared: Prepared, latents: list[int]) -> Scope:
    """The patches on which any of the latents fires."""
    firing = (prepared.activations.latents(latents) > 0).any(-1)[0]
    patches = firing[TokenView(prepared.activations.layout(), "patches").span].nonzero().flatten()
    return Scope("region", patches=tuple(patches.tolist()))


def bears_out(experiment: Experiment, before: str, after: str) -> bool:
    """Whether the texts do what the title says."""
    wanted = [
        (experiment.gains, False, True),
        (experiment.loses, True, False),
        (experiment.keeps, True, True),
    ]
    said = all(
        (has_word(before, word), has_word(after, word)) == (first, then)
        for word, first, then in wanted
        if word
    )
    return said and experiment.fails == (before == after)


def record(
    steerer: Steerer, experiment: Experiment, image: Image.Image
) -> dict[str, object] | None:
    """The experiment as the app reads it, or None if the texts do not bear it out."""
    try:
        edits = experiment.edits(steerer.prepare(image, DESCRIBE))
    except ValueError as error:
        print(f"LEFT OUT  {experiment.title}: {error}")  # noqa: T201
        return None
    request = SteerRequest(experiment.prompt, edits, max_new_tokens=MAX_NEW_TOKENS)
    *_, said = steerer.stream(image, request)
    before, after = said.original, said.steered
    borne_out = bears_out(experiment, before, after)
    verdict = "recorded" if borne_out else "LEFT OUT"
    print(f"{verdict}  {experiment.title}: {before} -> {after} (control: {said.control})")  # noqa: T201
    if not borne_out:
        return None
    plain = request.to_json()
    return {
        "title": experiment.title,
        "example": experiment.example,
        "prompt": experiment.prompt,
        "edits": plain["edits"],
        "recorded": said.to_json(),
    }


@command
def main(argv: list[str]) -> None:
    """Record all; see `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=BUNDLED)
    args = parser.parse_args(argv)
    parts = ("llava", "sae", "clip")
    own = args.into.resolve() != BUNDLED
    model, sae, clip = (str(args.into / part) if own else "bundled" for part in parts)
    steerer = Steerer.from_pretrained(model, sae, backbone=clip)
    pictures = {example.name: picture_of(example.scene) for example in EXAMPLES}
    recorded = [record(steerer, one, pictures[one.example]) for one in EXPERIMENTS]
    target = args.into / "steering" / "presets.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(target, {"presets": [one for one in recorded if one is not None]})


if __name__ == "__main__":
    sys.exit(main())
