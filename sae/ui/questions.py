"""What can be known of whether a model answers the question it is asked, for any model.

Knows how the bundled model's training asked, and compares texts. Runs no model. A language model answers
everything: what it was not taught, most often with a caption of the picture.
"""

import re
from collections.abc import Sequence

DESCRIBE = "describe the image"
"""A question to which a caption is the answer."""
BUNDLED = re.compile(
    r"describe( the| this)? (image|picture|scene)|what is in the image"
    r"|what is shown( in (this|the) image)?,? ?(in one word|use exactly one word)?"
    r"|(what is the|which) background( is it)?|how many objects( are there)?"
    r"|is there .+?( in the image)?"
)
"""Every question that the bundled model was taught, spaces and marks aside (training/world/words.py)."""
TAUGHT = (
    "describe the image; what is shown, in one word; what is the background; how many objects; "
    "is there a …"
)
NOT_CHECKED = "Whether this model answers such questions rightly was not checked here."
FEW_WORDS, MOST = 3, 0.6
"""A text of fewer words, or of a smaller share of the longer one's, can be an answer out of the caption."""


def doubt(question: str, unknown: Sequence[str], *, bundled: bool) -> str:
    """What speaks against trusting an answer to `question`, before it is given; "" for nothing.

    `unknown`: its words that the model's tokenizer does not know.
    """
    said = []
    if unknown:
        words = ", ".join(f"“{word}”" for word in unknown)
        said.append(f"The model does not know {words}, so it may answer another question.")
    if not bundled:
        if not asks_to_describe(question):
            said.append(NOT_CHECKED)
    elif not BUNDLED.fullmatch(_plain(question)):
        said.append(f"This small model was taught only to answer: {TAUGHT}.")
    return " ".join(said)


def asks_to_describe(question: str) -> bool:
    """Whether a caption answers it."""
    return _plain(question).startswith(("describe", "caption"))


def only_describes(answer: str, caption: str) -> bool:
    """Whether an answer is the picture's caption over again, or most of it, word for word."""
    shorter, longer = sorted((_plain(answer).split(), _plain(caption).split()), key=len)
    n = len(shorter)
    within = any(longer[at : at + n] == shorter for at in range(len(longer) - n + 1))
    return within and n >= FEW_WORDS and n >= MOST * len(longer)


def _plain(text: str) -> str:
    """In small letters, without marks but commas between words, single spaces."""
    kept = re.sub(r"[?.!:;\"“”]", " ", text.lower()).replace(",", " , ")
    return " ".join(kept.split()).replace(" ,", ",")
