"""One picture and prompt, ready for any number of edits. Knows what an edit cannot change.

Made by `Steerer.prepare`; it keeps the vision tower's activations at the SAE's layer.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from sae.backbones.vlm_replay import Capture
from sae.steering.activations import Activations

if TYPE_CHECKING:
    from sae.steering.steerer import Steerer


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture and prompt with everything that no edit changes already computed.

    Give it wherever a picture is asked for: the vision tower's layers up to the SAE's are not run
    again. `with_prompt` keeps the picture's part.
    """

    steerer: "Steerer"
    image: Image.Image
    prompt: str
    answer_start: str
    inputs: dict[str, Tensor]
    kept: Capture
    activations: Activations

    def with_prompt(self, prompt: str, answer_start: str = "") -> "Prepared":
        """The same picture with another prompt."""
        if (prompt, answer_start) == (self.prompt, self.answer_start):
            return self
        inputs = self.steerer.vlm.inputs(self.image, prompt, answer_start)
        return replace(self, prompt=prompt, answer_start=answer_start, inputs=inputs)

    @cached_property
    def logits(self) -> Tensor:
        """Next-token logits (vocabulary) float32 of the model as it is."""
        with torch.no_grad():
            return self.steerer.run(self, self.kept.hidden)[0]

    @cached_property
    def explained(self) -> float:
        """Share of the activations' variance that the SAE explains on this picture. Near or below
        0, the SAE was trained on another model or another layer."""
        sae = self.steerer.sae
        x = self.activations.x.to(sae.W_dec)
        with torch.no_grad():
            rest = x - sae.decode(self.activations.code, like=x)
        return float(1 - rest.square().sum() / (x - x.mean((0, 1))).square().sum())
