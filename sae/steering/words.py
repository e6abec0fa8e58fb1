"""Which tokens a word may begin with. Knows tokenizers' ways with spaces; knows no models."""

from typing import Any


def word_tokens(tokenizer: Any, word: str) -> list[int]:
    """First tokens of `word` at the start of a text and after a space, without duplicates.

    Raises ValueError for a word that the tokenizer does not know at all.
    """
    word = word.strip()
    if not word or len(word) > 100:
        raise ValueError(f"expected a word of 1 to 100 characters, got {word!r:.60}")
    found: list[int] = []
    for text in (word, f" {word}"):
        for token in tokenizer.encode(text, add_special_tokens=False):
            if tokenizer.decode([token]).strip():
                found.append(token)
                break
    known = [token for token in dict.fromkeys(found) if token != tokenizer.unk_token_id]
    if not known:
        raise ValueError(f"the model's tokenizer does not know {word!r}; try another word for it")
    return known


def token_text(tokenizer: Any, token: int) -> str:
    """A token as a person reads it."""
    return tokenizer.decode([token]).strip() or repr(tokenizer.decode([token]))
