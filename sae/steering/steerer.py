"""Steerer: a model that answers about pictures, an SAE of its vision tower, and what they say.

Knows how to join a VisionLanguage with an SAE and a request, and what of a picture no edit changes
(`Prepared`); the answers' forms are in `sae.steering.answers`. Knows nothing of screens. The model is
never changed: every edit lives in the call that makes it. One Steerer serves many threads.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor, nn

from sae import hub
from sae.backbones import Backbone
from sae.backbones.vlm import VisionLanguage
from sae.backbones.vlm_generate import TextStream, Writing, write
from sae.backbones.vlm_replay import Capture
from sae.concepts.index import ConceptIndex
from sae.lazy import lazy
from sae.model import SparseAutoencoder
from sae.steering.activations import (
    Activations,
    check_edits,
    check_image,
    control_change,
    control_latent,
)
from sae.steering.answers import (
    Captions,
    CaptionStream,
    NextTokens,
    next_tokens_of,
    word_tokens,
)
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

Edits = Mapping[int, float] | Iterable[Edit]
"""{latent: strength} or a list of Edit."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture and prompt with everything that no edit changes already computed.

    Give it wherever a picture is asked for: the vision tower's layers up to the SAE's are not run
    again. `with_prompt` keeps the picture's part.
    """

    steerer: "Steerer"
    image: Image.Image | Callable[[], Image.Image]
    """Only another prompt needs it again; a function that opens it keeps it out of memory until then."""
    prompt: str
    answer_start: str
    inputs: dict[str, Tensor]
    kept: Capture
    activations: Activations

    def with_prompt(self, prompt: str, answer_start: str = "") -> "Prepared":
        """The same picture with another prompt."""
        if (prompt, answer_start) == (self.prompt, self.answer_start):
            return self
        image = self.image() if callable(self.image) else self.image
        inputs = self.steerer.vlm.inputs(image, prompt, answer_start)
        return replace(self, prompt=prompt, answer_start=answer_start, inputs=inputs)

    @lazy
    def logits(self) -> Float32[Tensor, " vocabulary"]:
        """Next-token logits (vocabulary) float32 of the model as it is."""
        with torch.no_grad():
            return self.steerer.run(self, self.kept.hidden)[0]

    @lazy
    def explained(self) -> float:
        """Share of the activations' variance that the SAE explains on this picture. Near or below
        0, the SAE was trained on another model or another layer."""
        sae = self.steerer.sae
        x = self.activations.x.to(sae.W_dec)
        with torch.no_grad():
            rest = x - sae.decode(self.activations.code, like=x)
        return float(1 - rest.square().sum() / (x - x.mean((0, 1))).square().sum())


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
        max_activation: Float[np.ndarray | Tensor, " d_sae"] | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        """Join a transformers image-text-to-text model, its processor and an SAE of its tower.

        `backbone`, the SAE's own with text features, is used for the similarity of captions to
        words; that its vision layers are the model's is checked.
        Raises ValueError if the model has no vision tower or the SAE is of another one.
        """
        self.vlm = model if isinstance(model, VisionLanguage) else VisionLanguage(model, processor)
        self.sae, self.index, self.backbone = sae, index, backbone
        self.layer = _check_pair(self.vlm, sae, index)
        if backbone is not None:
            _check_same_tower(self.vlm, backbone)
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
        where, source = (
            {"subfolder": sae_subfolder, **access},
            hub.pinned(sae or "bundled", **access),
        )
        autoencoder = SparseAutoencoder.from_pretrained(source, device=device, **where)
        index = ConceptIndex.beside(source, **where)
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
            start = answer_start or (image.answer_start if prompt is None else "")
            return image.with_prompt(image.prompt if prompt is None else prompt, start)
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
        writing, about = self._writing(image, request, control)
        rows, _ = write(writing)
        return Captions.of([self.text(row) for row in rows], about)

    def stream(
        self, image: Image.Image | Prepared, request: SteerRequest, *, control: bool = True
    ) -> CaptionStream:
        """The same texts while they are written: iterate for Captions so far, `.stop()` to end."""
        writing, about = self._writing(image, request, control)
        return CaptionStream(TextStream(writing), self.text, about)

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
        check_edits(request.edits, self.sae, self.max_activation)
        prepared = self.prepare(image, request.prompt, answer_start)
        hidden = prepared.activations.edited(request.edits, error_term=error_term)
        logits = prepared.logits
        if hidden is not prepared.kept.hidden:
            with torch.no_grad():
                logits = self.run(prepared, hidden)[0]
        before = prepared.kept.hidden.float()
        size = float((hidden.float() - before).norm() / before.norm().clamp(min=1e-12))
        return next_tokens_of(self.vlm.tokenizer, prepared.logits, logits, n, tuple(words), size)

    def run(
        self, prepared: Prepared, hidden: Float[Tensor, "*copies tokens d"]
    ) -> Float[Tensor, "n vocabulary"]:
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
        check_edits((edit,), self.sae, self.max_activation)
        if edit.units == "max" and edit.mode in MEASURED and self.max_activation is not None:
            return edit.strength * float(self.max_activation[edit.latent])
        return edit.strength

    def writing(
        self, prepared: Prepared, rows: list[Float[Tensor, "*copy tokens d"]], max_new_tokens: int
    ) -> Writing:
        """A batch to be written, one text for each tensor of edited activations."""
        _check_room(self.vlm, prepared, max_new_tokens)
        hidden = torch.cat(rows) if len(rows) > 1 else rows[0]
        return Writing(self.vlm, prepared.inputs, self.layer, prepared.kept, hidden, max_new_tokens)

    def _writing(
        self, image: Image.Image | Prepared, request: SteerRequest, control: bool
    ) -> tuple[Writing, dict[str, Any]]:
        check_edits(request.edits, self.sae, self.max_activation)
        prepared = self.prepare(image, request.prompt, request.answer_start)
        activations = prepared.activations
        change = activations.change(request.edits, error_term=request.error_term)
        rows = [prepared.kept.hidden]
        rows.append(activations.edited(request.edits, error_term=request.error_term))
        about: dict[str, Any] = {
            "relative_change": activations.norms(change),
            "control_latent": None,
        }
        if control:
            number = control_latent(
                request.edits, request.control_seed, self.sae.cfg.d_sae, self.max_activation
            )
            rows.append(activations.plus(control_change(self.sae, change, number)))
            about["control_latent"] = number
        return self.writing(prepared, rows, request.max_new_tokens), about

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


def _check_pair(vlm: VisionLanguage, sae: SparseAutoencoder, index: ConceptIndex | None) -> int:
    """The layer to edit; ValueError if the SAE cannot be of this model's vision tower."""
    ref = sae.cfg.backbone
    trained = f"the SAE was trained on {ref.id!r}, layer {ref.layer}"
    if sae.cfg.d_in != vlm.d_model:
        raise ValueError(
            f"{trained}, of width {sae.cfg.d_in}; the vision tower of {vlm.id} has width "
            f"{vlm.d_model}. Use an SAE of this model's own tower"
        )
    if ref.family and vlm.family and ref.family != vlm.family:
        raise ValueError(
            f"{trained}, a {ref.family} model; the vision tower of {vlm.id} is {vlm.family}. Use an "
            "SAE of this model's own tower"
        )
    if index is not None and len(index) != sae.cfg.d_sae:
        raise ValueError(
            f"the index describes {len(index)} latents, the SAE has {sae.cfg.d_sae}; they must be "
            "of one artifact"
        )
    return vlm.resolve_layer(ref.layer)


def _check_same_tower(vlm: VisionLanguage, backbone: Backbone) -> None:
    """ValueError unless the backbone's layers are the tower's, weight by weight."""
    pairs = list(zip(vlm.layers, backbone._layers, strict=False))
    same = backbone.n_layers == vlm.n_layers and backbone.d_model == vlm.d_model
    if not same or not all(_equal(one, other) for one, other in (pairs[0], pairs[-1])):
        raise ValueError(
            f"the vision tower of {vlm.id} is not backbone {backbone.id}: its weights differ. "
            "Give the backbone that the tower was made from, or none"
        )


def _check_room(vlm: VisionLanguage, prepared: Prepared, max_new_tokens: int) -> None:
    """ValueError if prompt and answer do not fit into the language model."""
    text = getattr(vlm.model.config, "text_config", None)
    room = getattr(text, "max_position_embeddings", None)
    used = prepared.inputs["input_ids"].shape[1]
    if room and used + max_new_tokens > room:
        raise ValueError(
            f"picture and prompt take {used} tokens and the answer up to {max_new_tokens}; "
            f"{vlm.id} has room for {room}. Shorten the prompt or the answer"
        )


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=False)
    return all(
        a.shape == b.shape and torch.allclose(a.float().cpu(), b.float().cpu(), atol=1e-2)
        for a, b in pairs
    )
