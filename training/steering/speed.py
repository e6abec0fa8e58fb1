"""How long steering takes: the bundled model as the app asks it, and a full-size vision tower.

Knows clocks and random models; judges no text.
"""

import copy
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.steering import Edit, Steerer, SteerRequest
from sae.steering.doses import dose_response
from training.world.generator import images

LIMITS = {"next tokens, new picture": 0.150, "captions with control, new picture": 1.5}
D_SAE, SIZE = 65_536, 336


def seconds(call: Callable[[], object], n: int, *, warm_up: int = 1) -> tuple[float, float]:
    """Median and worst of `n` calls, after some that are not counted."""
    times = []
    for number in range(n + warm_up):
        start = time.perf_counter()
        call()
        if number >= warm_up:
            times.append(time.perf_counter() - start)
    return float(np.median(times)), max(times)


def bundled_speed(steerer: Steerer, latent: int, n: int = 20) -> Iterator[str]:
    """One line a measurement; each new picture goes through the whole path."""
    pictures = iter([Image.fromarray(p) for p in images(7, 4 * n + 8)[0]])
    prompt, edits = "describe the image", [Edit(latent, "set", 2.0)]
    prepared = steerer.prepare(next(pictures), prompt)
    request = SteerRequest(prompt, (Edit(latent, "set", 1.0),), max_new_tokens=24)
    calls: dict[str, Callable[[], object]] = {
        "next tokens, new picture": lambda: steerer.next_tokens(next(pictures), prompt, edits),
        "next tokens, known picture": lambda: steerer.next_tokens(prepared, edits=edits),
        "captions with control, new picture": lambda: steerer.generate(
            next(pictures), prompt, edits, control=True, max_new_tokens=24
        ),
        "captions with control, known picture": lambda: steerer.generate(
            prepared, edits=edits, control=True, max_new_tokens=24
        ),
        "first streamed word": lambda: next(iter(steerer.stream(prepared, request))),
        "ladder of five doses": lambda: dose_response(steerer, prepared, request, word="cat"),
    }
    for name, call in calls.items():
        median, worst = seconds(call, n)
        limit = LIMITS.get(name)
        verdict = "" if limit is None else f", limit {limit * 1e3:.0f} ms "
        verdict += "" if limit is None else "ok" if worst <= limit else "OVER"
        yield f"{name:<38} {median * 1e3:6.1f} ms, worst {worst * 1e3:6.1f} ms{verdict}"


@torch.no_grad()
def full_size_speed(bundled: Steerer) -> Iterator[str]:
    """A random CLIP ViT-L/14 (336 px) in a LLaVA with a small language model, and 65,536 latents."""
    steerer, prompt = _full_size(bundled), "user : <image> describe the image assistant :"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8))
    inputs = steerer.vlm.inputs(image, prompt)
    tower, _ = seconds(lambda: steerer.vlm.tower(inputs["pixel_values"]), 2)
    yield f"vision tower alone, 24 layers            {tower * 1e3:7.0f} ms"
    prepared = steerer.prepare(image, prompt)
    fresh = prepared.activations
    cases: dict[str, tuple[Edit, ...]] = {
        "edit one latent": (Edit(5, "set", 9.0, "raw"),),
        "edit sixteen latents": tuple(Edit(n, "set", 9.0, "raw") for n in range(16)),
    }
    for name, edits in cases.items():
        took, _ = seconds(lambda edits=edits: fresh.edited(edits), 5)
        yield f"{name:<40} {took * 1e3:7.1f} ms = {took / tower:.2%} of the tower"
    took, _ = seconds(lambda: steerer.sae.encode_sparse(fresh.x), 1, warm_up=0)
    yield (
        f"encode all latents (only, replacement)   {took * 1e3:7.0f} ms = {took / tower:.1%} of the "
        "tower, once a picture"
    )
    hidden = fresh.edited(cases["edit one latent"])
    rerun, _ = seconds(lambda: steerer.run(prepared, hidden), 3)
    plain, _ = seconds(lambda: steerer.run(prepared, prepared.kept.hidden), 3)
    yield (
        f"next token after an edit, replayed       {rerun * 1e3:7.0f} ms (unedited {plain * 1e3:.0f} "
        f"ms); running the tower again would add {tower * 1e3:.0f} ms"
    )


def _full_size(bundled: Steerer) -> Steerer:
    """The bundled model's words and language model behind a tower of the real size."""
    from transformers import (
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=SIZE,
        patch_size=14,
    )
    small = bundled.vlm.model.config
    text = copy.deepcopy(small.text_config)
    text.max_position_embeddings = 1024
    tokenizer = copy.deepcopy(bundled.vlm.tokenizer)
    tokenizer.model_max_length = 1024
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=small.image_token_id
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    ref = BackboneRef("random ViT-L/14-336", -2, family="clip")
    sae = SparseAutoencoder(SAEConfig("batch_topk", 1024, D_SAE, ref, k=20, threshold=3.0))
    with torch.no_grad():
        sae.W_enc.normal_(std=1 / 32)
        sae.W_dec.normal_(std=1 / 32)
    return Steerer(model, processor, sae.eval())
