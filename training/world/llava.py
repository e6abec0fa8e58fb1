"""Trains the world's small LLaVA: `python training/world/llava.py --clip sae/bundled/clip`.

Knows the world, its questions and transformers' Llava classes. The vision tower is the trained
CLIP's, frozen; the projector and a small Llama learn to answer. All questions about an image share
its image tokens in one sequence, each seeing the image and itself alone (a block mask), so the long
image prefix is computed once. Resumable: run the same command again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sae.terminal import command
from sae.world.scenes import SIZE, compose
from sae.world.tasks import HELD_OUT_SEED
from training.world.clip import IGNORE, LAYER, make_image_processor, pixels_of
from training.world.fit import FitConfig, fit, tensors_sha256
from training.world.generator import images, sample_scene
from training.world.words import PROMPT, description, main_object, make_tokenizer, questions


def make_model(clip: Any, width: int = 128, layers: int = 4, seed: int = 0) -> Any:
    """A fresh LlavaForConditionalGeneration around a frozen copy of `clip`'s vision tower."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = make_tokenizer(closes=False)
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = clip.config.vision_config
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=LAYER,
        vision_feature_select_strategy="default",
        image_seq_length=(SIZE // vision.patch_size) ** 2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")
    tower = model.model.vision_tower
    getattr(tower, "vision_model", tower).load_state_dict(clip.vision_model.state_dict())
    tower.requires_grad_(False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


class Batches:
    """`Batches(...)(step)`: pixels and packed questions of training batch `step`."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        tokenizer = make_tokenizer(closes=False)
        self.ids = tokenizer.get_vocab()
        self.end = tokenizer.eos_token_id

    def _words(self, text: str) -> list[int]:
        return [self.ids[word] for word in text.split()]

    def _pack(
        self, pairs: list[tuple[str, str]]
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        """Tokens, next-token targets, segment numbers and positions within the segment."""
        tokens: list[int] = []
        targets: list[int] = []
        segments: list[int] = []
        places: list[int] = []
        for number, (question, answer) in enumerate(pairs):
            asked = self._words(PROMPT.split("<image>")[1].format(question))
            told = [*self._words(answer), self.end]
            row = asked + told[:-1]
            tokens += row
            targets += [IGNORE] * (len(asked) - 1) + told
            segments += [number] * len(row)
            places += range(len(row))
        return tokens, targets, segments, places

    def __call__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.Generator(np.random.PCG64([self.seed, 1, step]))
        drawn = [sample_scene(rng) for _ in range(self.size)]
        packed = [self._pack(questions(scene, rng)) for scene in drawn]
        longest = max(len(row[0]) for row in packed)
        fills = (0, IGNORE, -1, 0)
        arrays = [
            np.stack(
                [np.pad(row[i], (0, longest - len(row[i])), constant_values=fill) for row in packed]
            )
            for i, fill in enumerate(fills)
        ]
        names = ("tokens", "targets", "segments", "places")
        batch = {
            name: torch.from_numpy(a.astype(np.int64))
            for name, a in zip(names, arrays, strict=True)
        }
        batch["pixels"] = pixels_of(np.stack([compose(scene).image for scene in drawn]))
        return batch


def packed_logits(
    model: Any, batch: dict[str, Tensor]
) -> Float[Tensor, "images tokens vocabulary"]:
    """Logits (B, text tokens, vocabulary) of packed questions after the shared image prefix."""
    inner = model.model
    prefix_ids = make_tokenizer(closes=False)(PROMPT.split("<image>")[0])["input_ids"]
    embed = inner.get_input_embeddings()
    with torch.no_grad():
        hidden = inner.vision_tower(batch["pixels"], output_hidden_states=True).hidden_states[LAYER]
    image = inner.multi_modal_projector(hidden[:, 1:].detach())
    prefix = embed(torch.tensor(prefix_ids, device=image.device)).expand(len(image), -1, -1)
    inputs = torch.cat([prefix, image.to(prefix.dtype), embed(batch["tokens"])], dim=1)
    n_prefix = prefix.shape[1] + image.shape[1]
    segments, places = batch["segments"], batch["places"]
    n_text = segments.shape[1]
    causal = torch.ones(
        n_prefix + n_text, n_prefix + n_text, dtype=torch.bool, device=image.device
    ).tril()
    allowed = causal.expand(len(image), -1, -1).clone()
    allowed[:, n_prefix:, n_prefix:] &= segments[:, :, None] == segments[:, None, :]
    mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[:, None]
    first = torch.arange(n_prefix, device=image.device).expand(len(image), -1)
    positions = torch.cat([first, n_prefix + places], dim=1)
    out = inner.language_model(
        inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
    )
    return model.lm_head(out.last_hidden_state[:, n_prefix:])


def answer_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of the answers, and the share of words predicted first.

    Every answer counts alike, however long: else "yes" would hardly matter beside a description.
    """
    logits = packed_logits(model, batch).float().flatten(0, 1)
    targets = batch["targets"].flatten()
    told = targets != IGNORE
    rows = torch.arange(len(batch["targets"]), device=targets.device)[:, None]
    answer = (rows * (int(batch["segments"].max()) + 1) + batch["segments"]).flatten()[told]
    weight = 1 / torch.bincount(answer)[answer]
    each = F.cross_entropy(logits[told], targets[told], reduction="none")
    return {
        "loss": (each * weight).sum() / weight.sum(),
        "hits": (logits[told].argmax(-1) == targets[told]).float().mean(),
    }


@torch.no_grad()
def answers(
    model: Any,
    pictures: UInt8[np.ndarray, "images height width 3"],
    question: str,
    batch: int = 100,
) -> list[str]:
    """The model's greedy answers to `question` for uint8 pictures (n, H, W, 3)."""
    processor, tokenizer = make_processor(), make_tokenizer(closes=False)
    told = []
    for start in range(0, len(pictures), batch):
        chunk = list(pictures[start : start + batch])
        inputs = processor(
            images=chunk, text=[PROMPT.format(question)] * len(chunk), return_tensors="pt"
        ).to(model.device)
        out = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        new = out[:, inputs["input_ids"].shape[1] :]
        told += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return told


def evaluate(model: Any, n: int = 500, seed: int = HELD_OUT_SEED + 100) -> dict[str, float]:
    """Held-out shares: captions that name the object(s), and exact answers to the other questions."""
    figures: dict[str, float] = {"n": n, "seed": seed}
    for count in (1, 2, 3):
        pictures, scenes = images(seed + count, n, n_objects=count)
        told = answers(model, pictures, "describe the image")
        named = [
            all(item.kind in text.split() for item in s.objects)
            for s, text in zip(scenes, told, strict=True)
        ]
        figures[f"caption_names_all_of_{count}"] = round(float(np.mean(named)), 4)
        exact = [text == description(s) for s, text in zip(scenes, told, strict=True)]
        figures[f"caption_exact_{count}"] = round(float(np.mean(exact)), 4)
    pictures, scenes = images(seed, n)
    rng = np.random.Generator(np.random.PCG64(seed))
    truths = {"what is shown , in one word ?": [main_object(s) for s in scenes]}
    for number, asked in ((2, "what is the background ?"), (3, "how many objects ?")):
        truths[asked] = [questions(s, rng)[number][1] for s in scenes]
    for question, truth in truths.items():
        told = answers(model, pictures, question)
        key = question.replace(" ?", "").replace(" ,", "").replace(" ", "_")
        figures[key] = round(float(np.mean([a == b for a, b in zip(told, truth, strict=True)])), 4)
    hits = []
    for number, scene in enumerate(scenes[:200]):
        question, answer = questions(scene, rng)[4]
        hits.append(answers(model, pictures[number : number + 1], question)[0] == answer)
    figures["is_there_a"] = round(float(np.mean(hits)), 4)
    return figures


def make_processor() -> Any:
    """The LlavaProcessor that the bundled model ships with."""
    from transformers import LlavaProcessor

    template = (
        "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
    )
    return LlavaProcessor(
        image_processor=make_image_processor(),
        tokenizer=make_tokenizer(closes=False),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=template,
    )


def export(model: Any, folder: Path) -> None:
    """Write an ordinary fp16 Llava directory with its processor."""
    model.half().save_pretrained(folder)
    make_processor().save_pretrained(folder)
    model.float()


@command
def main(argv: list[str]) -> None:
    """Train, export and measure; see `--help`."""
    from transformers import CLIPModel

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, default=Path("sae/bundled/clip"))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/llava"), help="checkpoints and curves"
    )
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", type=Path, help="write the Llava directory here at the end")
    args = parser.parse_args(argv)
    clip_model = CLIPModel.from_pretrained(args.clip, dtype=torch.float32)
    llava = make_model(clip_model, args.width, args.layers).to(args.device)
    tower = tensors_sha256(clip_model.vision_model.state_dict())
    about = {"batch": args.batch, "width": args.width, "layers": args.layers, "clip": tower}
    settings = FitConfig(
        out=args.out,
        steps=args.steps,
        lr=args.lr,
        workers=args.workers,
        device=args.device,
        about=about,
    )
    fit(llava, Batches(args.batch), lambda batch, _: answer_loss(llava, batch), settings)
    if args.export:
        export(llava, args.export)
    figures = evaluate(llava.eval())
    (args.out / "eval.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
