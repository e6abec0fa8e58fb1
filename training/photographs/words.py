"""Wider words of ImageNet's classes, from WordNet's hierarchy, into a small file that comes with PatchLens.

    python -m training.photographs.words --wordnet /usr/share/wordnet

Debian's package wordnet-base has the dictionary; only whoever changes WIDER needs it. Knows WordNet's file
format and timm's list of ImageNet's synsets, whose numbers are WordNet 3.0's. Knows no models.
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from sae.backbones.classes import IMAGENET_WORDS, classes_sha256
from sae.terminal import command

WIDER = """
animal, mammal, dog, terrier, spaniel, hound, retriever, poodle, cat=domestic cat, big cat, wolf,
fox, bear, monkey, ape, primate, rodent, rabbit, elephant, whale, hoofed mammal, antelope, swine,
marsupial, bird, finch, parrot, grouse, duck, heron, stork, seabird, shorebird, bird of prey,
aquatic bird, wading bird, fish, shark, reptile, snake, lizard, turtle, amphibian, frog, salamander,
insect, beetle, butterfly, arachnid, spider, crustacean, crab, lobster, mollusk, fungus, flower,
plant=flora, person, food, fruit, vegetable, squash, bread, sandwich, dessert, dish, drink, vehicle,
wheeled vehicle, motor vehicle, car=auto, truck, bus, van, bicycle, wagon, locomotive, public
transport, military vehicle, aircraft, watercraft, boat, ship, sailing vessel, warship, building,
house, dwelling, shop, place of worship, bridge, fence, roof, column, furniture, chair, seat, table,
cabinet, musical instrument, wind instrument, woodwind, brass instrument, stringed instrument,
guitar, keyboard instrument, piano, percussion instrument, clothing, coat, skirt, sweater, swimsuit,
hat, cap, headdress, helmet, footwear, shoe, necktie, scarf, mask, armor, weapon, gun, tool, hand
tool, knife, utensil, cookware, pot, pan, bottle, jug, drinking glass, bowl, basket, bag, box,
tableware, container, machine, computer, portable computer, telephone, camera, clock, timepiece,
measuring instrument, optical instrument, household appliance, kitchen appliance, electronic
equipment, lamp, wheel, sports equipment, ball, toy=plaything, puzzle, pen, towel, fabric, mountain,
shore, geological formation
"""
"""Words for several classes, after "=" what WordNet calls them; the meaning with most classes counts."""


def read_nouns(file: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The words and the hypernyms of every synset of WordNet's data.noun, by its number of eight digits."""
    words: dict[str, list[str]] = {}
    above: dict[str, list[str]] = {}
    for line in file.read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.split(" | ")[0].split()
        n_words = int(fields[3], 16)
        first = 4 + 2 * n_words
        pointers = fields[first + 1 : first + 1 + 4 * int(fields[first])]
        words[fields[0]] = [fields[4 + 2 * i].replace("_", " ") for i in range(n_words)]
        above[fields[0]] = [
            pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")
        ]
    return words, above


def wider_words(
    synsets: list[str],
    wanted: dict[str, str],
    words: dict[str, list[str]],
    above: dict[str, list[str]],
) -> dict[str, list[int]]:
    """The classes under each of `wanted` (word → what WordNet calls it), as numbers of `synsets`.

    ValueError for a word that has fewer than two of them: it is no wider word.
    """
    under: dict[str, set[int]] = {}
    for number, synset in enumerate(synsets):
        seen, todo = set(), [synset]
        while todo:
            for parent in above[todo.pop()]:
                if parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        for parent in seen:
            under.setdefault(parent, set()).add(number)
    found: dict[str, list[int]] = {}
    for word, called in wanted.items():
        meanings = [members for synset, members in under.items() if called in words[synset]]
        members = max(meanings, key=len, default=set())
        if len(members) < 2:
            raise ValueError(f"{called!r} stands for {len(members)} of the classes; drop it.")
        found[word] = sorted(members)
    return found


def listed(text: str = WIDER) -> dict[str, str]:
    """The words of `text` and what WordNet calls each."""
    pairs = [entry.strip().partition("=") for entry in text.replace("\n", " ").split(",")]
    return {word: called or word for word, _, called in pairs}


@command
def main(argv: list[str]) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--out", type=Path, default=IMAGENET_WORDS)
    options = parser.parse_args(argv)
    from timm.data import ImageNetInfo

    from sae.backbones import Backbone

    classes = Backbone.from_pretrained("photos").classes
    synsets = [name.removeprefix("n") for name in ImageNetInfo("imagenet-1k").label_names()]
    words = wider_words(synsets, listed(), *read_nouns(options.wordnet / "data.noun"))
    about = "From WordNet 3.0 by training/photographs/words.py; its licence stands in NOTICE."
    content = json.dumps({"about": about, "classes": classes_sha256(classes), "words": words})
    options.out.write_text(content.replace('], "', '],\n"') + "\n", encoding="utf-8")
    print(f"{options.out}: {len(words)} words over {len(classes)} classes")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
