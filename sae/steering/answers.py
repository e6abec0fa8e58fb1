"""What steering answers: captions side by side, the change of the next token, and words as tokens.

Knows plain values, probabilities and tokenizers' ways with spaces; runs no model.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.backbones.vlm_generate import TextStream

ENDS = {"</s>", "<eos>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>"}
"""Marks that end a text or a turn, whichever of them a tokenizer calls so."""


@dataclass(frozen=True)
class Captions:
    """Texts of one picture and prompt, all from one batch. Unpacks into (original, steered)."""

    original: str
    """What the model says as it is."""
    steered: str
    """What it says with the edits."""
    control: str | None
    """What it says when a random latent changes every token by as much; None if not asked for."""
    control_latent: int | None
    relative_change: float
    """Norm of the change over norm of the activations: 0.18 for 18 %."""
    done: bool = True
    """False while the texts are being written, and after a stop."""

    @classmethod
    def of(cls, texts: Sequence[str], about: dict[str, Any], *, done: bool = True) -> "Captions":
        """Captions from the batch's texts, in the order in which it was made."""
        return cls(texts[0], texts[1], texts[2] if len(texts) > 2 else None, done=done, **about)

    def __iter__(self) -> Iterator[str]:
        return iter((self.original, self.steered))

    @property
    def changed(self) -> bool:
        """Whether the edits changed the text."""
        return self.original != self.steered

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class CaptionStream:
    """Iterating gives Captions as they grow, the last one whole; `stop()` ends it, text kept."""

    def __init__(
        self, stream: TextStream, text: Callable[[list[int]], str], about: dict[str, Any]
    ) -> None:
        """`text` makes a text of token numbers; `about` has the captions' other fields."""
        self._stream, self._text, self._about = stream, text, about

    def stop(self) -> None:
        """Write no further token. Safe from any thread."""
        self._stream.stop()

    def __iter__(self) -> Iterator[Captions]:
        texts: list[str] | None = None
        for rows in self._stream:
            texts = [self._text(row) for row in rows]
            yield Captions.of(texts, self._about, done=False)
        if texts is not None and not self._stream.stopped:
            yield Captions.of(texts, self._about)


@dataclass(frozen=True)
class TokenChange:
    """A possible next token and its probability without and with the edits."""

    text: str
    before: float
    after: float

    @property
    def change(self) -> float:
        """after - before."""
        return self.after - self.before


@dataclass(frozen=True)
class NextTokens:
    """How edits change what comes next."""

    gained: list[TokenChange]
    """Tokens whose probability grew most, most first."""
    lost: list[TokenChange]
    """Tokens whose probability fell most, most first."""
    top: list[TokenChange]
    """The likeliest tokens with the edits."""
    words: list[TokenChange]
    """The words that were asked for, by name."""
    kl: float
    """Kullback-Leibler divergence in nats of the distribution with edits from the one without."""
    relative_change: float
    """Norm of the change over norm of the activations: 0.18 for 18 %."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def next_tokens_of(
    tokenizer: Any,
    before: Float[Tensor, " vocabulary"],
    after: Float[Tensor, " vocabulary"],
    n: int,
    words: Sequence[str] = (),
    relative_change: float = 0.0,
) -> NextTokens:
    """Compare next-token logits (vocabulary) without and with edits."""
    if not 1 <= n <= 100:
        raise ValueError(f"n is the number of tokens to list, 1 to 100, got {n}")
    log_before, log_after = before.log_softmax(-1), after.log_softmax(-1)
    p, q = log_before.exp(), log_after.exp()
    change = q - p

    def listed(scores: Tensor) -> list[TokenChange]:
        values, tokens = scores.topk(min(n, len(scores)))
        pairs = zip(values.tolist(), tokens.tolist(), strict=True)
        return [
            TokenChange(token_text(tokenizer, t), float(p[t]), float(q[t]))
            for value, t in pairs
            if value > 0
        ]

    followed = [(word, word_tokens(tokenizer, word)) for word in words]
    return NextTokens(
        listed(change),
        listed(-change),
        listed(q),
        [TokenChange(word, float(p[t].sum()), float(q[t].sum())) for word, t in followed],
        float(torch.nan_to_num(q * (log_after - log_before)).sum().clamp(min=0)),
        relative_change,
    )


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """Words of a text that the tokenizer has no token for, in order."""
    words = dict.fromkeys(re.findall(r"[^\W_]+", text))
    unknown = tokenizer.unk_token_id
    return [w for w in words if unknown in tokenizer.encode(w, add_special_tokens=False)]


def word_tokens(tokenizer: Any, word: str) -> list[int]:
    """First tokens of `word` at the start of a text and after a space, without duplicates.

    Raises ValueError for a word that the tokenizer does not know at all.
    """
    word = word.strip()
    if not word or len(word) > 100:
        raise ValueError(f"expected a word of 1 to 100 characters, got {word!r:.60}")
    first: list[int] = []
    for text in (word, f" {word}"):
        for token in tokenizer.encode(text, add_special_tokens=False):
            if tokenizer.decode([token]).strip():
                first.append(token)
                break
    known = [token for token in dict.fromkeys(first) if token != tokenizer.unk_token_id]
    if not known:
        raise ValueError(f"the model's tokenizer does not know {word!r}; try another word for it")
    return known


def token_text(tokenizer: Any, token: int) -> str:
    """A token as a person reads it: marks that end a text and white space are told in words."""
    text = tokenizer.decode([token])
    if token == tokenizer.eos_token_id or text.strip() in ENDS:
        return "(end of the text)"
    if token in tokenizer.all_special_ids:
        return "(a mark, no word)"
    return text.strip() or ("(new line)" if "\n" in text else "(space)")
