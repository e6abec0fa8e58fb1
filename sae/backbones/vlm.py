"""Models of transformers that answer in text about a picture, seen from their vision tower.

Knows where such models keep their tower, which of its layers they read, and how their processors
take a prompt (chat templates and image slots; the wording is never changed). Knows nothing of SAEs:
`sae.steering` says which activations the tower shall give. Replays
the tower from one layer on, so that the part before it is computed once a picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor, nn

from sae import hub
from sae.backbones.base import find_layers
from sae.backbones.vlm_layout import (
    PatchLayout,
    patch_colours,
    position_picture,
    read_positions,
)
from sae.backbones.vlm_replay import Capture, capture, replaying
from sae.errors import BackboneError
from sae.images import upright_rgb

BUNDLED = Path(__file__).resolve().parents[1] / "bundled" / "llava"
_TOWERS = ("vision_tower", "vision_model", "visual", "vision_encoder")
_FAMILIES = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
_FAMILIES |= {"siglip2_vision_model": "siglip2", "clip": "clip", "siglip": "siglip"}
_WITH_CLS = ("clip_vision_model", "internvl_vision")


class VisionLanguage:
    """An image-text-to-text model whose vision tower is a stack of layers.

    Tried on random models of the real classes: LLaVA 1.5, LLaVA-NeXT, LLaVA-OneVision, PaliGemma,
    Idefics3, SmolVLM, Qwen2-VL, Qwen2.5-VL and Qwen3-VL. Layers count as in Backbone.
    """

    def __init__(self, model: Any, processor: Any, *, id: str = "local") -> None:
        """Wrap a model and its processor (shared, not copied; the model is put into eval mode).

        Raises ValueError if the model has no vision tower or writes no text.
        """
        name = type(model).__name__
        inner = getattr(model, "model", model)
        towers = [getattr(inner, tower, None) for tower in _TOWERS]
        tower = next((module for module in towers if isinstance(module, nn.Module)), None)
        if tower is None or not hasattr(model, "generate"):
            lacks = "vision tower" if tower is None else "generate(), so it writes no text"
            raise ValueError(
                f"{name} ({id}) has no {lacks}; expected an image-text-to-text model such as "
                "LlavaForConditionalGeneration"
            )
        if getattr(processor, "image_processor", None) is None:
            raise ValueError(
                f"{type(processor).__name__} has no image processor; give the model's own "
                "AutoProcessor, which prepares picture and prompt together"
            )
        self.model, self.processor, self.id = model.eval(), processor, id
        self.tower: Any = tower
        config = self.model.config.vision_config
        self.n_layers: int = getattr(config, "num_hidden_layers", None) or config.depth
        self.d_model: int = getattr(config, "embed_dim", None) or config.hidden_size
        self.layers = list(find_layers(tower, self.n_layers, lambda: name))
        self.family: str | None = _FAMILIES.get(config.model_type)
        """The Backbone family of the tower, where it is one."""
        self.reads = _layers_read(self.model.config, self.n_layers)
        """The layers that the language model gets, ascending."""
        patch = config.patch_size
        self._patch = (patch, patch) if isinstance(patch, int) else tuple(patch)
        self._has_cls = config.model_type in _WITH_CLS
        self._layout = lru_cache(maxsize=8)(self._find_layout)

    @classmethod
    def from_pretrained(
        cls,
        id_or_dir: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> "VisionLanguage":
        """Load a model and its processor from safetensors: "bundled", a folder or a Hub id.

        Raises ValueError for a model that answers no picture in text, BackboneError for what cannot be read
        and HubError for what the Hub does not give.
        """
        name = str(id_or_dir)
        where = str(BUNDLED) if name == "bundled" else name
        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        if Path(where).is_dir():
            return cls._read(name, where, {"local_files_only": True}, **placed)
        access: dict[str, Any] = {"token": token, "local_files_only": local_files_only}
        commit = hub.snapshot(name, ["config.json"], revision=revision, **access).name
        with hub.telling(name, revision):
            return cls._read(name, where, {"revision": commit, **access}, **placed)

    @classmethod
    def _read(
        cls,
        name: str,
        where: str,
        source: dict[str, Any],
        *,
        device: str | torch.device,
        dtype: torch.dtype,
    ) -> "VisionLanguage":
        """The model in the folder or at the commit of `where`; `source` goes to transformers."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            model, report = AutoModelForImageTextToText.from_pretrained(
                where, dtype=dtype, use_safetensors=True, output_loading_info=True, **source
            )
        except ValueError as error:
            raise ValueError(
                f"{name} is no model that transformers knows to answer in text about a picture "
                f"({' '.join(str(error).split())[:120]}); give one such as llava-hf/llava-1.5-7b-hf"
            ) from error
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise BackboneError(
                f"{name}: its weights lack {len(missing)} tensors, such as {missing[0]}; expected a "
                "complete checkpoint, so download it again"
            )
        processor = AutoProcessor.from_pretrained(where, **source)
        return cls(model.to(device).requires_grad_(False), processor, id=name)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the tower is now."""
        return next(self.tower.parameters()).device

    def resolve_layer(self, layer: int) -> int:
        """The layer as a number in 0 … n_layers - 1.

        Raises ValueError if it does not exist, or if the language model reads only layers before it,
        so that no edit of it could be seen in the text.
        """
        if not -self.n_layers <= layer < self.n_layers:
            raise ValueError(
                f"layer {layer} does not exist: the vision tower of {self.id} has {self.n_layers} "
                f"layers, so give {-self.n_layers} to {self.n_layers - 1}"
            )
        layer %= self.n_layers
        if layer > self.reads[-1]:
            raise ValueError(
                f"layer {layer} comes after layer {self.reads[-1]}, the last one that {self.id} "
                "reads, so its text could not change; use an SAE of that layer or an earlier one"
            )
        return layer

    def inputs(self, image: Image.Image, prompt: str, answer_start: str = "") -> dict[str, Tensor]:
        """The model's inputs for one picture and prompt, on its device.

        A prompt with the model's image slot (such as "<image>") is taken as it stands, any other is
        put into the model's chat template. `answer_start` is what the answer begins with.
        """
        text = prompt_text(self.processor, prompt, self.model.config.model_type, answer_start)
        return self._processed(upright_rgb(image), text)

    def capture(self, inputs: dict[str, Tensor], layer: int) -> Capture:
        """Run the tower up to `layer` and keep its activations."""
        with torch.no_grad():
            return capture(self.layers, layer, lambda: self.model(**inputs), also=self.reads)

    def layout(self, size: tuple[int, int], kept: Capture) -> PatchLayout:
        """Where the tokens of pictures of `size` (width, height) lie."""
        rows, tokens = _rows_and_tokens(kept.hidden)
        return self._layout(size, rows, tokens)

    @contextmanager
    def replay(
        self, layer: int, kept: Capture, hidden: Float[Tensor, "*rows tokens d"]
    ) -> Iterator[None]:
        """Within this context and thread the tower gives `hidden` at `layer`; see `replaying`."""
        with replaying(self.layers, layer, kept, hidden, last=self.reads[-1]):
            yield

    def logits(
        self,
        inputs: dict[str, Tensor],
        layer: int,
        kept: Capture,
        hidden: Float[Tensor, "*rows tokens d"],
    ) -> Float32[Tensor, "copies vocabulary"]:
        """Next-token logits (copies, vocabulary) float32, one row for each copy in `hidden`.

        Gradients flow to `hidden` if they are on.
        """
        copies = hidden.shape[0] // kept.hidden.shape[0]
        with self.replay(layer, kept, hidden):
            output = self.model(**repeated(inputs, copies), use_cache=False, logits_to_keep=1)
        return output.logits[:, -1].float()

    def _processed(self, image: Image.Image, text: str) -> dict[str, Tensor]:
        bos = getattr(self.tokenizer, "bos_token", None)
        plain = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        inputs = self.processor(images=[[image]], text=[text], return_tensors="pt", **plain)
        dtype = next(self.tower.parameters()).dtype
        return {
            name: value.to(self.device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and name != "labels"
        }

    def _find_layout(self, size: tuple[int, int], rows: int, tokens: int) -> PatchLayout:
        slot = image_slot(self.processor)
        inputs = self._processed(position_picture(size), slot)
        pixels = inputs["pixel_values"].float().cpu()
        processor = self.processor.image_processor
        if pixels.dim() > 3:
            pixels = pixels.reshape(-1, *pixels.shape[-3:])
            colours = patch_colours(pixels, self._patch)
            grid = (pixels.shape[-2] // self._patch[0], pixels.shape[-1] // self._patch[1])
        else:
            colours = pixels.reshape(pixels.shape[0], 3, -1).mean(-1)[self._packed_order(inputs)]
            colours = colours[None]
            grid = tuple(inputs["image_grid_thw"][0, 1:].tolist())
        if colours.shape[0] != rows or colours.shape[1] > tokens:
            raise ValueError(
                f"the tower of {self.id} gave {rows} × {tokens} tokens for a picture that its "
                f"processor cuts into {colours.shape[0]} × {colours.shape[1]} patches, so regions "
                "of the picture cannot be told; edit all tokens instead"
            )
        centres = read_positions(colours, processor.image_mean, processor.image_std)
        return PatchLayout(centres, grid, tokens - colours.shape[1], self._has_cls)

    def _packed_order(self, inputs: dict[str, Tensor]) -> Tensor:
        """Which patch each token of a packed tower is: Qwen2.5-VL sorts them into windows."""
        n_patches = len(inputs["pixel_values"])
        if not hasattr(self.tower, "window_size"):
            return torch.arange(n_patches)
        from transformers.vision_utils import get_vision_window_index

        merge = self.tower.spatial_merge_size
        windows, _ = get_vision_window_index(
            inputs["image_grid_thw"],
            spatial_merge_size=merge,
            window_size=self.tower.window_size,
            patch_size=self._patch[0],
        )
        return torch.arange(n_patches).reshape(-1, merge**2)[windows.cpu()].flatten()


def repeated(inputs: dict[str, Tensor], copies: int) -> dict[str, Tensor]:
    """Inputs of one picture and prompt, `copies` times: every tensor's first axis is the batch, or
    packs all pictures one after another."""
    if copies == 1:
        return inputs
    return {name: value.repeat(copies, *[1] * (value.dim() - 1)) for name, value in inputs.items()}


def _layers_read(config: Any, n_layers: int) -> tuple[int, ...]:
    read = getattr(config, "vision_feature_layer", None)
    if read is None:
        read = getattr(config, "vision_feature_layers", None)
    numbers = [-1] if read is None else [read] if isinstance(read, int) else list(read)
    # hidden_states[0] is what the first layer gets, so layer l gives hidden_states[l + 1].
    layers = {number - 1 if number >= 0 else n_layers + number for number in numbers}
    deep = getattr(config.vision_config, "deepstack_visual_indexes", None)
    return tuple(sorted(layers | set(deep or ())))


def _rows_and_tokens(hidden: Tensor) -> tuple[int, int]:
    return (1, hidden.shape[0]) if hidden.dim() == 2 else (hidden.shape[0], hidden.shape[1])


def image_slot(processor: Any) -> str:
    """The text that stands for a picture in this processor's prompts, such as "<image>"."""
    slot = getattr(processor, "image_token", None)
    return str(slot) if slot is not None else "<image>"


def prompt_text(processor: Any, prompt: str, model_type: str, answer_start: str = "") -> str:
    """The whole text for one picture: `prompt` as it stands if it has the image slot, else inside
    the chat template; then `answer_start`, with which the answer begins.

    Raises ValueError for a prompt with several slots, or with none where there is no template.
    """
    slot = image_slot(processor)
    n_slots = prompt.count(slot)
    if n_slots > 1:
        raise ValueError(
            f"the prompt has {n_slots} image slots ({slot}), expected one picture; remove the others"
        )
    if n_slots == 1:
        text = prompt
    elif getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    elif model_type == "paligemma":
        text = slot + prompt  # PaliGemma's prompts are the picture and then plain words
    else:
        raise ValueError(
            f"the prompt has no image slot and this model's processor no chat template; write {slot} "
            f"where the picture belongs, as in 'USER: {slot} {prompt[:40]} ASSISTANT:'"
        )
    if answer_start:
        text += answer_start if text[-1:].isspace() else f" {answer_start}"
    return text
