"""Steerer: a model that answers about pictures, an SAE of its vision tower, and what they say.

Knows how to join a VisionLanguage with an SAE and a request; the answers' forms are in
`sae.steering.answers`. Knows nothing of screens. The model is never changed: every edit lives in
the call that makes it. One Steerer serves many threads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sae.backbones import Backbone
from sae.backbones.vlm import VisionLanguage
from sae.backbones.vlm_generate import TextStream, Writing, write
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from sae.steering.activations import Activations
from sae.steering.answers import Captions, CaptionStream, NextTokens, next_tokens_of
from sae.steering.checks import check_edits, check_image, check_pair, check_room, check_same_tower
from sae.steering.edits import (
    EVERYWHERE,
    MEASURED,
    Edit,
    Mode,
    Scope,
    SteerRequest,
    Units,
    as_edits,
)
from sae.steering.prepared import Prepared
from sae.steering.random_control import control_change, control_latent
from sae.steering.words import word_tokens

Edits = Mapping[int, float] | Iterable[Edit]
"""{latent: strength} or a list of Edit."""


class Steerer:
    """Edits latents while a model answers, and says what changed.

    Strengths are multiples of each latent's own maximum over the index (units "max") where an index
    or max_activation was given, else the SAE's own activations (units "raw").
    """

    def __init__(
        self,
        model: nn.Module | VisionLanguage,
        processor: Any,
        sae: SparseAutoencoder,
        *,
        index: ConceptIndex | None = None,
        max_activation: np.ndarray | Tensor | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        """Join a transformers image-text-to-text model, its processor and an SAE of its tower.

        `backbone`, the SAE's own with text features, is used for the similarity of captions to
        words; that its vision layers are the model's is checked.
        Raises ValueError if the model has no vision tower or the SAE is of another one.
        """
        self.vlm = model if isinstance(model, VisionLanguage) else VisionLanguage(model, processor)
        self.sae, self.index, self.backbone = sae, index, backbone
        self.layer = check_pair(self.vlm, sae, index)
        if backbone is not None:
            check_same_tower(self.vlm, backbone)
        if max_activation is None and index is not None:
            max_activation = index.max_activation
        self.max_activation = None if max_activation is None else torch.as_tensor(max_activation)
        self.units: Units = "raw" if max_activation is None else "max"

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "bundled",
        sae: str | Path | None = None,
        *,
        backbone: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        sae_subfolder: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> "Steerer":
        """Load a model and an SAE with its index: "bundled", folders or Hub ids.

        `sae` may be left out for "bundled" only; one without an index takes raw strengths. `dtype`
        is the model's. `backbone` is the CLIP that the model's tower was made from, for similarities.
        """
        if sae is None and str(model) != "bundled":
            raise ValueError(f"{model}: give the SAE of its vision tower as well (sae=...)")
        access: dict[str, Any] = {"token": token, "local_files_only": local_files_only}
        vlm = VisionLanguage.from_pretrained(
            model, revision=revision, device=device, dtype=dtype, **access
        )
        where = {"subfolder": sae_subfolder, **access}
        autoencoder = SparseAutoencoder.from_pretrained(sae or "bundled", device=device, **where)
        index = ConceptIndex.beside(sae or "bundled", **where)
        if backbone is None and str(model) == "bundled":
            backbone = "bundled"
        vit = None if backbone is None else Backbone.from_pretrained(backbone, **access)
        return cls(vlm, vlm.processor, autoencoder, index=index, backbone=vit)

    def prepare(
        self, image: Image.Image | Prepared, prompt: str | None = None, answer_start: str = ""
    ) -> Prepared:
        """Run the vision tower up to the SAE's layer, once for all edits of this picture.

        Raises ValueError for what is no picture, and for prompts that are too long or have no place
        for the picture.
        """
        if isinstance(image, Prepared):
            same = prompt is None or prompt == image.prompt
            start = answer_start or (image.answer_start if prompt is None else "")
            return image.with_prompt(image.prompt if same else prompt, start)
        check_image(image)
        SteerRequest(prompt or "", answer_start=answer_start)
        inputs = self.vlm.inputs(image, prompt or "", answer_start)
        kept = self.vlm.capture(inputs, self.layer)
        size = image.size
        activations = Activations(
            kept.hidden, self.sae, lambda: self.vlm.layout(size, kept), self.max_activation
        )
        return Prepared(self, image, prompt or "", answer_start, inputs, kept, activations)

    def generate(
        self,
        image: Image.Image | Prepared,
        prompt: str | None = None,
        edits: Edits = (),
        mode: Mode = "set",
        error_term: bool = True,
        *,
        units: Units | None = None,
        scope: Scope = EVERYWHERE,
        max_new_tokens: int = 64,
        control: bool = False,
        control_seed: int = 0,
    ) -> Captions:
        """What the model says as it is and with the edits, from one batch, decoded greedily.

        `edits`: {latent: strength} with `mode`, `units` and `scope`, or a list of Edit. `control`
        adds a third text: a random latent that changes every token by as much.
        """
        request = self._request(image, prompt, edits, mode, units, scope, error_term)
        request = replace(request, max_new_tokens=max_new_tokens, control_seed=control_seed)
        prepared, writing, about = self._writing(image, request, control)
        rows, _ = write(writing)
        return Captions.of(prepared, request, [self.text(row) for row in rows], about)

    def stream(
        self, image: Image.Image | Prepared, request: SteerRequest, *, control: bool = True
    ) -> CaptionStream:
        """The same texts while they are written: iterate for Captions so far, `.stop()` to end."""
        prepared, writing, about = self._writing(image, request, control)
        return CaptionStream(prepared, request, TextStream(writing), self.text, about)

    def next_tokens(
        self,
        image: Image.Image | Prepared,
        prompt: str | None = None,
        edits: Edits = (),
        *,
        mode: Mode = "set",
        error_term: bool = True,
        units: Units | None = None,
        scope: Scope = EVERYWHERE,
        answer_start: str = "",
        n: int = 8,
        words: Iterable[str] = (),
    ) -> NextTokens:
        """How the edits change the next token: words gained and lost, before any text is written.

        `answer_start` moves the question to later in the answer ("a" asks what comes after "a").
        `words` are followed by name.
        """
        request = self._request(image, prompt, edits, mode, units, scope, error_term)
        check_edits(self, request.edits)
        prepared = self.prepare(image, request.prompt, answer_start)
        hidden = prepared.activations.edited(request.edits, error_term=error_term)
        logits = prepared.logits
        if hidden is not prepared.kept.hidden:
            with torch.no_grad():
                logits = self.run(prepared, hidden)[0]
        before = prepared.kept.hidden.float()
        size = float((hidden.float() - before).norm() / before.norm().clamp(min=1e-12))
        return next_tokens_of(self.vlm.tokenizer, prepared.logits, logits, n, tuple(words), size)

    def run(self, prepared: Prepared, hidden: Tensor) -> Tensor:
        """Next-token logits (copies, vocabulary) with the tower giving `hidden` at the SAE's layer."""
        return self.vlm.logits(prepared.inputs, self.layer, prepared.kept, hidden)

    def text(self, tokens: list[int]) -> str:
        """Token numbers as text, without special tokens."""
        return self.vlm.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def word_tokens(self, word: str) -> list[int]:
        """The tokens a word may begin with."""
        return word_tokens(self.vlm.tokenizer, word)

    def raw_strength(self, edit: Edit) -> float:
        """An edit's strength as the SAE's own activation, to show beside the multiple."""
        check_edits(self, (edit,))
        if edit.units == "max" and edit.mode in MEASURED:
            return edit.strength * float(self.max_activation[edit.latent])
        return edit.strength

    def writing(self, prepared: Prepared, rows: list[Tensor], max_new_tokens: int) -> Writing:
        """A batch to be written, one text for each tensor of edited activations."""
        check_room(self.vlm, prepared, max_new_tokens)
        hidden = torch.cat(rows) if len(rows) > 1 else rows[0]
        return Writing(self.vlm, prepared.inputs, self.layer, prepared.kept, hidden, max_new_tokens)

    def _writing(
        self, image: Image.Image | Prepared, request: SteerRequest, control: bool
    ) -> tuple[Prepared, Writing, dict[str, Any]]:
        check_edits(self, request.edits)
        prepared = self.prepare(image, request.prompt, request.answer_start)
        found = prepared.activations
        change = found.change(request.edits, error_term=request.error_term)
        rows = [prepared.kept.hidden]
        rows.append(found.edited(request.edits, error_term=request.error_term))
        about: dict[str, Any] = {"relative_change": found.norms(change), "control_latent": None}
        if control:
            number = control_latent(self, request)
            rows.append(found.plus(control_change(self.sae, change, number)))
            about["control_latent"] = number
        return prepared, self.writing(prepared, rows, request.max_new_tokens), about

    def _request(
        self,
        image: Image.Image | Prepared,
        prompt: str | None,
        edits: Edits,
        mode: Mode,
        units: Units | None,
        scope: Scope,
        error_term: bool,
    ) -> SteerRequest:
        if prompt is None and isinstance(image, Prepared):
            prompt = image.prompt
        chosen = as_edits(edits, mode, units or self.units, scope)
        start = image.answer_start if isinstance(image, Prepared) else ""
        return SteerRequest(prompt or "", chosen, error_term, answer_start=start)
