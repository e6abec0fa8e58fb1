"""Writing several texts at once from one picture, token by token, stoppable at any time.

Knows transformers' generate; knows nothing of SAEs. All rows share picture and prompt and differ
in the activations that the vision tower gives. Decoding is greedy, so that the same request always
gives the same texts.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sae.backbones.vlm import VisionLanguage, repeated
from sae.backbones.vlm_replay import Capture


@dataclass(frozen=True, eq=False)
class Writing:
    """What is needed to write: the tower's activations (copies × rows, tokens, d) at one layer."""

    vlm: VisionLanguage
    inputs: dict[str, Tensor]
    layer: int
    kept: Capture
    hidden: Float[Tensor, "*rows tokens d"]
    max_new_tokens: int

    @property
    def copies(self) -> int:
        """How many texts are written."""
        return self.hidden.shape[0] // self.kept.hidden.shape[0]


@torch.no_grad()
def write(
    writing: Writing,
    *,
    with_logits: bool = False,
    stop: threading.Event | None = None,
    on_tokens: Any = None,
) -> tuple[list[list[int]], Float32[Tensor, "rows steps vocabulary"] | None]:
    """Token numbers of each row's answer, without the end token, and logits
    (rows, steps, vocabulary) float32 if asked for. `on_tokens` gets the rows' tokens of each step."""
    from transformers import StoppingCriteriaList

    vlm, model = writing.vlm, writing.vlm.model
    ends = _end_tokens(model)
    pad = model.generation_config.pad_token_id
    options: dict[str, Any] = {"pad_token_id": ends[0] if pad is None and ends else pad}
    if stop is not None:
        options["stopping_criteria"] = StoppingCriteriaList([_asked_to(stop)])
    if on_tokens is not None:
        options["streamer"] = _streamer(on_tokens)
    inputs = repeated(writing.inputs, writing.copies)
    with vlm.replay(writing.layer, writing.kept, writing.hidden):
        output = model.generate(
            **inputs,
            max_new_tokens=writing.max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            return_dict_in_generate=True,
            output_logits=with_logits,
            **options,
        )
    new = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    logits = torch.stack(output.logits, dim=1).float() if with_logits else None
    return [until_end(row, ends) for row in new], logits


class TextStream:
    """Iterating gives the token numbers of every row so far, after each step.

    The texts are written in a thread of their own; `stop()`, or leaving the loop, ends it after the
    step it is in. What was written before a stop stays.
    """

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._stop = threading.Event()
        self.stopped = False
        """Whether a stop was asked for before the texts had ended."""

    def stop(self) -> None:
        """Write no further step. Safe from any thread, and more than once."""
        self._stop.set()

    def __iter__(self) -> Iterator[list[list[int]]]:
        steps: queue.Queue[list[int] | BaseException | None] = queue.Queue()
        ends = _end_tokens(self._writing.vlm.model)
        rows: list[list[int]] = [[] for _ in range(self._writing.copies)]

        def work() -> None:
            try:
                write(self._writing, stop=self._stop, on_tokens=steps.put)
                steps.put(None)
            except BaseException as error:  # it belongs to whoever reads the stream
                steps.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (step := steps.get()) is not None:
                if isinstance(step, BaseException):
                    raise step
                for row, token in zip(rows, step, strict=True):
                    row.append(token)
                yield [until_end(row, ends) for row in rows]
        finally:
            self.stopped = self._stop.is_set()
            self._stop.set()
            thread.join()


def until_end(tokens: list[int], ends: list[int]) -> list[int]:
    """The tokens before the first end token."""
    places = [tokens.index(end) for end in ends if end in tokens]
    return tokens[: min(places)] if places else tokens[:]


def _end_tokens(model: Any) -> list[int]:
    end = model.generation_config.eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)


def _asked_to(stop: threading.Event) -> Any:
    from transformers import StoppingCriteria

    class AskedTo(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
            return torch.full((len(input_ids),), stop.is_set(), device=input_ids.device)

    return AskedTo()


def _streamer(on_tokens: Any) -> Any:
    from transformers.generation.streamers import BaseStreamer

    class Steps(BaseStreamer):
        begun = False

        def put(self, value: Tensor) -> None:
            if self.begun:  # the first call hands over the prompt
                on_tokens(value.reshape(-1).tolist())
            self.begun = True

        def end(self) -> None:
            pass

    return Steps()
