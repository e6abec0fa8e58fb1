"""Dose and response: one edit in growing strength, all answers from one batch.

Knows probabilities and texts; the batch is written by `sae.backbones.vlm_generate`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae.backbones.vlm_generate import write
from sae.steering.activations import check_edits
from sae.steering.answers import word_tokens
from sae.steering.edits import Edit, SteerRequest

if TYPE_CHECKING:
    from PIL import Image

    from sae.steering.steerer import Prepared, Steerer

DOSES = (-2.0, -1.0, 0.0, 1.0, 2.0)
MAX_DOSES = 16


@dataclass(frozen=True)
class Dose:
    """The answer at one strength."""

    dose: float
    """What every edit's strength is multiplied with."""
    caption: str
    p_word: float | None
    """Largest probability, over the places of the caption, that the word begins there."""
    names_word: bool | None
    """Whether the caption has the word."""
    similarity: float | None
    """Cosine of the caption's and the word's text features; None without a backbone with text."""
    fluency: float
    """Geometric mean of the probabilities that the model gave the tokens it wrote, times the share
    of distinct pairs of neighbouring tokens: 1 for a sure text, near 0 for one that loops."""


@dataclass(frozen=True)
class DoseResponse:
    """A ladder of doses. `original` is the model as it is."""

    word: str | None
    original: str
    doses: list[Dose]
    """In the order in which they were asked for."""
    flip: float | None
    """The smallest dose, by size, whose caption gains or loses the word (without a word: differs
    from the original); None if no dose does."""

    @property
    def monotonic(self) -> bool | None:
        """Whether p_word never falls from the smallest to the largest dose."""
        rows = sorted(self.doses, key=lambda row: row.dose)
        ordered = [row.p_word for row in rows if row.p_word is not None]
        if len(ordered) < len(rows):
            return None
        return all(b >= a - 1e-6 for a, b in zip(ordered, ordered[1:], strict=False))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@torch.no_grad()
def dose_response(
    steerer: "Steerer",
    image: "Image.Image | Prepared",
    request: SteerRequest,
    doses: Sequence[float] = DOSES,
    *,
    word: str | None = None,
    refine: bool = False,
) -> DoseResponse:
    """The request's edits with their strengths multiplied by each dose, and the original, in one
    batch; edits that have no strength (ablate, only) stay as they are, and dose 0 leaves all away.

    `refine` narrows `flip` down with one more batch between the doses on its two sides.
    """
    if not 1 <= len(doses) <= MAX_DOSES or not request.edits:
        raise ValueError(
            f"a ladder needs 1 to {MAX_DOSES} doses and an edit, got {len(doses)} doses and "
            f"{len(request.edits)} edits"
        )
    prepared = steerer.prepare(image, request.prompt, request.answer_start)
    ladder = [dosed(request.edits, dose) for dose in doses]
    original, rows = _rung(steerer, prepared, request, ladder, list(doses), word)
    flip = _flip(original, rows, word)
    if refine and flip is not None:
        lower = max(
            (d for d in (0.0, *doses) if d * flip >= 0 and abs(d) < abs(flip)), key=abs, default=0.0
        )
        between = [lower + (flip - lower) * step / 5 for step in range(1, 5)]
        finer = [dosed(request.edits, dose) for dose in between]
        _, more = _rung(steerer, prepared, request, finer, between, word)
        finer_flip = _flip(original, more, word)
        flip = flip if finer_flip is None else finer_flip
    return DoseResponse(word, original, rows, flip)


def dosed(edits: Sequence[Edit], dose: float) -> tuple[Edit, ...]:
    """The edits with their strengths multiplied by `dose`; dose 0 leaves all away."""
    if dose == 0:
        return ()
    return tuple(
        replace(edit, strength=1 + (edit.strength - 1) * dose)
        if edit.mode == "scale"
        else replace(edit, strength=edit.strength * dose)
        for edit in edits
    )


def _rung(
    steerer: "Steerer",
    prepared: "Prepared",
    request: SteerRequest,
    ladder: list[tuple[Edit, ...]],
    doses: list[float],
    word: str | None,
) -> tuple[str, list[Dose]]:
    for edits in ladder:
        check_edits(edits, steerer.sae, steerer.max_activation)
    rows = [prepared.kept.hidden]
    rows += [
        prepared.activations.edited(edits, error_term=request.error_term or not edits)
        for edits in ladder
    ]
    writing = steerer.writing(prepared, rows, request.max_new_tokens)
    tokens, logits = write(writing, with_logits=True)
    assert logits is not None, "asked for"
    texts = [steerer.text(row) for row in tokens]
    firsts = word_tokens(steerer.vlm.tokenizer, word) if word else []
    similar = _similarities(steerer, texts[1:], word)
    answers = []
    for number, dose in enumerate(doses, start=1):
        p = logits[number, : len(tokens[number]) + 1].softmax(-1)
        chosen = p[: len(tokens[number])].gather(
            1, torch.tensor(tokens[number], device=p.device).reshape(-1, 1)
        )
        sure = float(chosen.clamp(min=1e-12).log().mean().exp()) if len(chosen) else 0.0
        p_word = float(p[:, firsts].sum(-1).max()) if word else None
        names = has_word(texts[number], word) if word else None
        fluency = sure * distinct_pairs(tokens[number])
        answers.append(Dose(dose, texts[number], p_word, names, similar[number - 1], fluency))
    return texts[0], answers


def has_word(text: str, word: str) -> bool:
    """Whether `text` has `word` (or its plural in s) as whole words, whatever the case."""
    plain = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    wanted = "".join(c if c.isalnum() else " " for c in word.lower()).split()
    spans = (plain[i : i + len(wanted)] for i in range(len(plain)))
    plural = [*wanted[:-1], f"{wanted[-1]}s"] if wanted else wanted
    return any(span in (wanted, plural) for span in spans)


def distinct_pairs(tokens: list[int]) -> float:
    """Share of distinct ones among the pairs of neighbouring tokens; 1 for less than two tokens."""
    pairs = list(zip(tokens, tokens[1:], strict=False))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def _flip(original: str, rows: list[Dose], word: str | None) -> float | None:
    def flips(row: Dose) -> bool:
        if word is None:
            return row.caption != original
        return row.names_word != has_word(original, word)

    flipped = [row.dose for row in rows if row.dose and flips(row)]
    return min(flipped, key=abs, default=None)


def _similarities(steerer: "Steerer", texts: list[str], word: str | None) -> list[float | None]:
    if word is None or steerer.backbone is None or not steerer.backbone.has_text:
        return [None] * len(texts)
    features: Tensor = steerer.backbone.text_features([word, *(text or " " for text in texts)])
    return (features[1:] @ features[0]).tolist()
