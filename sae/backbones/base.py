"""Images in, activations out: the one interface of every vision tower.

Knows the mechanics that all families share: preprocessing, the truncated forward, edits, the patch
grid and the box. The families, one file each, know their library's module paths; nothing here does.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor, nn

from sae.backbones.classes import ClassReadout
from sae.backbones.framing import Box, Framing
from sae.backbones.interception import EditFn, editing, output_of
from sae.backbones.maps import FeatureMap, edited_as_tokens, tokens_of
from sae.config import BackboneRef
from sae.images import upright_rgb

Images = Sequence[Image.Image] | Mapping[str, Tensor]
"""A list of Pillow pictures, or what `Backbone.preprocess` made of one."""


class Backbone(ABC):
    """A vision tower: activations = what a layer gives, as tokens.

    Of a vision transformer that is the residual stream after the layer. Layers count from 0; a
    negative layer counts as in transformers' hidden_states, so that -1 is the last and -2 the one
    before (the layer that LLaVA reads). Activations of layer l equal hidden_states[l + 1]: no final
    norm is applied. Of a convolutional tower it is a feature map, whose positions are the tokens;
    there `d_model` and `patch_grid` differ from layer to layer, and `at(layer)` has that layer's.

    One Backbone can serve many threads at once; an edit is seen only by the thread that opened it.
    """

    family: str
    model_types: ClassVar[tuple[str, ...]] = ()
    """Values of config.json's model_type that the family reads, if it goes by these."""
    weight_files: ClassVar[tuple[str, ...]] = ()
    """Names of which one must be in a checkpoint's folder; without any, some .safetensors."""
    hub_files: ClassVar[tuple[str, ...]] = ("*.json", "*.txt", "*.model", "*.safetensors")
    """What is downloaded of a Hub repository."""
    has_text: bool = False
    classes: tuple[str, ...] = ()
    """What a classifier at the end of the model tells apart, in words; empty without one."""
    logit_scale: float | None = None
    """What cosine similarities of image and text features are multiplied by, if anything."""

    def __init__(
        self,
        vision: nn.Module,
        layers: Iterable[nn.Module],
        framing: Framing,
        *,
        id: str,
        revision: str | None,
        d_model: int = 0,
        patch_size: tuple[int, int] = (1, 1),
        n_prefix: int = 0,
        has_cls: bool = False,
        maps: Sequence[FeatureMap] = (),
    ) -> None:
        """`maps`: of a convolutional tower, what each of the layers gives, in place of `d_model`,
        `patch_size` and prefix tokens."""
        self.id, self.revision = id, revision
        self.n_prefix, self.has_cls = n_prefix, has_cls
        self._vision: Any = vision
        self._layers, self._framing, self._maps = list(layers), framing, tuple(maps)
        self.n_layers = len(self._layers)
        if maps:
            self._look_at(maps[-1])
        else:
            self.d_model = d_model
            rows, cols = framing.crop[0] // patch_size[0], framing.crop[1] // patch_size[1]
            self.patch_grid = (rows, cols)
            self._covered = (rows * patch_size[0], cols * patch_size[1])

    def at(self, layer: int) -> Self:
        """This backbone as it is at `layer`: d_model, patch_grid and image_box are those of the layer.

        A vision transformer is the same at every layer and gives itself; of a convolutional tower it
        is a light copy that shares the model.
        """
        if not self._maps:
            return self
        there = copy.copy(self)
        there._look_at(self._maps[self.resolve_layer(layer)])
        return there

    def _look_at(self, seen: FeatureMap) -> None:
        self.d_model, self.patch_grid = seen.width, seen.grid(self._framing.crop)
        self._covered = (self.patch_grid[0] * seen.stride, self.patch_grid[1] * seen.stride)

    @staticmethod
    def from_pretrained(
        id_or_dir: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> "Backbone":
        """Load a backbone, frozen and in eval mode, from safetensors.

        `id_or_dir`: "bundled" (the emoji world) or "photos"; a directory or Hub id of a
        transformers CLIP, SigLIP, SigLIP 2, DINOv2, DINOv3 or ViT checkpoint; an open_clip or timm
        directory; "hf-hub:ORG/NAME" for open_clip on the Hub; "timm/NAME" for timm on the Hub.
        `revision` becomes the exact commit.

        Raises ValueError for an unknown kind of model, BackboneError for what cannot be read,
        HubError for what the Hub does not give.
        """
        from sae.backbones.loading import load_backbone

        return load_backbone(
            str(id_or_dir),
            revision=revision,
            device=device,
            dtype=dtype,
            token=token,
            local_files_only=local_files_only,
        )

    @staticmethod
    def of(ref: BackboneRef, id_or_dir: str | Path | None = None, **options: Any) -> "Backbone":
        """The backbone that an SAE was made for, at the revision it names, or `id_or_dir` in its place.

        `options` are those of `from_pretrained`. It is seen `at` the SAE's layer.
        """
        wanted = ref.id if id_or_dir is None else str(id_or_dir)
        revision = ref.revision if wanted == ref.id else None
        return Backbone.from_pretrained(wanted, revision=revision, **options).at(ref.layer)

    @staticmethod
    def from_model(
        model: nn.Module, image_processor: Any = None, tokenizer: Any = None, *, id: str = "local"
    ) -> "Backbone":
        """Wrap a model in memory (shared, not copied; it is put into eval mode).

        `model` is one of transformers (a vision tower, or vision and text), open_clip or timm.
        Without an image_processor the family's usual one for the model's image size is used;
        without a tokenizer there are no text features.
        """
        from sae.backbones.loading import wrap_model

        return wrap_model(model, image_processor, tokenizer, id=id)

    @classmethod
    def reads(cls, folder: Path, config: Mapping[str, Any]) -> bool:  # noqa: ARG003
        """Whether a folder holds a checkpoint of this family; `config` is its config.json or {}."""
        return config.get("model_type") in cls.model_types

    @classmethod
    def wraps(cls, model: nn.Module) -> bool:
        """Whether a model in memory is of this family."""
        return getattr(getattr(model, "config", None), "model_type", None) in cls.model_types

    @classmethod
    def load(
        cls,
        source: str,
        config: dict[str, Any],
        *,
        id: str,
        revision: str | None,
        device: str | torch.device,
        dtype: torch.dtype,
        token: str | None = None,
        local_files_only: bool = True,
    ) -> Self:
        """Read the checkpoint in the folder `source`, frozen, in eval mode and on `device`.

        (For a family of transformers `source` may be a Hub id, which token and local_files_only
        are for.)
        """
        raise NotImplementedError(f"{cls.__name__} reads no checkpoints: {source}")

    @property
    def device(self) -> torch.device:
        """Where the model is now."""
        return next(self._vision.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The model's dtype, which is that of its activations."""
        return next(self._vision.parameters()).dtype

    @property
    def is_convolutional(self) -> bool:
        """Whether the layers give feature maps instead of a residual stream."""
        return bool(self._maps)

    def resolve_layer(self, layer: int) -> int:
        """The layer as a number in 0 … n_layers - 1. Raises ValueError if it is out of range."""
        if not -self.n_layers <= layer < self.n_layers:
            raise ValueError(
                f"layer {layer} does not exist: {self.id} has {self.n_layers} layers, so give "
                f"{-self.n_layers} to {self.n_layers - 1} (-1 is the last)"
            )
        return layer % self.n_layers

    def preprocess(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Pictures of any mode and size to the model's inputs, float32 on the CPU.

        pixel_values is (B, 3, height, width) (SigLIP 2: (B, patches, values) and its masks).
        Resampling is always Pillow's, whichever backends are installed.
        """
        if isinstance(images, Image.Image) or not isinstance(images, Sequence) or not images:
            got = type(images).__name__ if not isinstance(images, Sequence) else "an empty list"
            raise ValueError(f"expected a list of one or more Pillow pictures, got {got}")
        for image in images:
            if not isinstance(image, Image.Image):
                raise ValueError(
                    f"expected Pillow pictures, got {type(image).__name__}; open files with "
                    "sae.images.open_image, arrays with PIL.Image.fromarray"
                )
        return self._pixels([self._framing.apply(upright_rgb(image)) for image in images])

    def needed_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of a picture of `size` that is enough to decode: twice what it becomes."""
        width, height = self._framing.resized(size)
        return 2 * width, 2 * height

    def without_model(self) -> "Backbone":
        """A copy that can only preprocess, small enough to send to another process."""
        light = copy.copy(self)
        for name in {"_vision", "_layers", "_model", "_tokenizer"} & vars(self).keys():
            setattr(light, name, None)
        return light

    @torch.no_grad()
    def activations(self, images: Images, layer: int) -> Float[Tensor, "images tokens d_model"]:
        """What `layer` gives (B, tokens, d_model); later layers are not run.

        Patches are [:, n_prefix : n_prefix + rows * cols], row by row; before them CLS (if
        has_cls) and registers. Edits that are open in this thread are included.
        """
        module = self._layers[self.resolve_layer(layer)]
        inputs = self._inputs(images)
        hidden = output_of(module, lambda: self._forward(inputs)).detach()
        return tokens_of(hidden).contiguous() if self._maps else hidden

    @contextmanager
    def edit(self, layer: int, fn: EditFn) -> Iterator[None]:
        """Replace the activations h (B, tokens, d_model) of `layer` by fn(h) within this context.

        Everything that runs the model in this thread is affected, a language model on top of it
        included; other threads are not, and nothing stays behind, also after an exception. fn must
        keep the shape; its dtype is cast back. Open it in the thread that runs the model.
        """
        change = edited_as_tokens(fn) if self._maps else fn
        with editing(self._layers[self.resolve_layer(layer)], change):
            yield

    @torch.no_grad()
    def image_features(self, images: Images) -> Float32[Tensor, "images d_proj"]:
        """Unit vectors (B, d_proj) float32: the projection that text is compared with.

        Without a text tower, the model's pooled output.
        """
        return F.normalize(self._image_features(self._inputs(images)).float(), dim=-1)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Float32[Tensor, "texts d_proj"]:
        """Unit vectors (N, d_proj) float32. Raises ValueError if the backbone has no text."""
        if not self.has_text:
            raise ValueError(
                f"backbone {self.id} ({self.family}) has no text features; use a full CLIP or "
                "SigLIP checkpoint with its tokenizer"
            )
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected a list of one or more strings, got {texts!r:.80}")
        return F.normalize(self._text_features(list(texts)).float(), dim=-1)

    @torch.no_grad()
    def class_logits(self, images: Images) -> Float32[Tensor, "images classes"]:
        """Logits (B, classes) float32 of the model's own classifier; ValueError if it has none."""
        if not self.classes:
            raise ValueError(
                f"backbone {self.id} ({self.family}) ends without a classifier; use a model with "
                "one, such as timm's of ImageNet, or compare with words where it has text"
            )
        return self._class_logits(self._inputs(images)).float()

    def class_readout(self, layer: int) -> ClassReadout | None:
        """The classifier as it reads the activations of `layer`, where pooling and classifier are linear
        in them; else None."""
        del layer
        return None

    def image_box(self, size: tuple[int, int]) -> Box:
        """(left, top, right, bottom): where the patch grid lies in a picture of `size`.

        `size` is (width, height) of the upright picture, the result is in its pixels. Outside it
        the model saw nothing (a centre crop); a model that pads sees beyond, negative numbers then.
        """
        return self._framing.box(size, self._covered)

    def _inputs(self, images: Images) -> dict[str, Tensor]:
        inputs = images if isinstance(images, Mapping) else self.preprocess(images)
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    @abstractmethod
    def _pixels(self, framed: list[Image.Image]) -> dict[str, Tensor]:
        """RGB pictures of the input's size to tensors: scaled and normalised, nothing else."""

    @abstractmethod
    def _forward(self, inputs: dict[str, Tensor]) -> object:
        """Run the vision tower; the result is not used."""

    @abstractmethod
    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, d_proj), not normalised."""

    def _class_logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, classes). Only called if there are classes."""
        raise ValueError(f"{type(self).__name__} says classes but gives no logits of {len(inputs)}")

    def _text_features(self, texts: list[str]) -> Tensor:
        """(N, d_proj), not normalised. Only called if has_text."""
        raise ValueError(f"{type(self).__name__} says has_text but encodes no {len(texts)} texts")


def find_layers(module: nn.Module, n_layers: int, describe: Callable[[], str]) -> nn.ModuleList:
    """The first ModuleList of n_layers modules inside `module`, whatever its name."""
    for child in module.modules():
        if isinstance(child, nn.ModuleList) and len(child) == n_layers:
            return child
    raise ValueError(f"found no list of {n_layers} layers in {describe()}; is it a transformer?")
