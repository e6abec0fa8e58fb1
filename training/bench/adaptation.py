"""Comparing two heads at full size: python training/bench/adaptation.py

A random CLIP ViT-B/16 (224 px) with a MaPLe head of depth 9 beside zero-shot, and a random SAE of
49,152 latents. Times what the Compare tab does for one picture (after one warm-up), the peak memory
of the process, and a sweep of 20 masks against the naive way (the whole model once a mask) and
against the full forward, in ratios of this process's CPU time, which other programs do not disturb.
"""

import sys
import time
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch

from sae.adaptation.classifier import Classifier
from sae.adaptation.compare import Comparison
from sae.adaptation.heads import MapleHead
from sae.adaptation.lens import ConceptLens
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.terminal import command
from training.bench.gauges import VIT_B_16, give_directions, peak_gib, picture, seconds, verdict
from training.tasks.masking import Masks, ranks_of, sweep

D_SAE, N_CLASSES = 49_152, 100
LIMIT_S, LIMIT_GIB, LIMIT_PASSES = 6.0, 6.0, 3.0
KS = (1, 2, 5, 10, 50, 100, 500, 1000, 2000, D_SAE)
N_PICTURES = 4
SIZE = 640, 480


def backbone() -> Backbone:
    """CLIP ViT-B/16 of the real shapes with random weights, and a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", *["a", "photo", "of", "picture"]]
    words += [f"w{i}" for i in range(N_CLASSES)]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<pad>",
    )
    text = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = CLIPConfig(vision_config=VIT_B_16, text_config=text, projection_dim=512)
    return Backbone.from_model(CLIPModel(config), tokenizer=tokenizer, id="random ViT-B/16")


def random_sae(vit: Backbone, architecture: str) -> SparseAutoencoder:
    """Random directions; relu keeps some 150 latents a token, as PatchSAE's."""
    keep: dict[str, Any] = {"k": 32} if architecture == "topk" else {}
    ref = BackboneRef(vit.id, -2, family=vit.family)
    sae = SparseAutoencoder(SAEConfig(architecture, vit.d_model, D_SAE, ref, **keep))
    with torch.no_grad():
        directions = give_directions(sae)
        x = vit.activations([picture(99, SIZE)], -2)[0]
        sae.b_dec.copy_(x.mean(0))
        sae.b_enc.fill_(-float(((x - sae.b_dec) @ directions).topk(150).values[:, -1].median()))
    return sae.eval().requires_grad_(False)


def explain(parts: ClipParts, sae: SparseAutoencoder, pair: tuple[Classifier, Classifier]) -> float:
    """Time one explanation with two heads, the second with vision prompts of its own."""
    comparison = Comparison(parts.backbone, sae)
    times = []
    for seed in range(3):
        work = lambda s=seed: comparison.explain_with(picture(s, SIZE), pair).to_json(64)  # noqa: E731
        times.append(seconds(work))
    cpu = seconds(work, time.process_time)
    explained = comparison.explain_with(picture(0, SIZE), pair)
    toggled = seconds(lambda: comparison.switched_off(explained, [explained.concepts[0].latent]))
    answer = explained.to_json()["heads"][1]
    total = sum(row["share"] for row in answer["contributions"]) + answer["residual"]
    worst = max(times[1:])
    print(
        f"{sae.cfg.architecture:<5} two heads on one picture {worst:.2f} s (first {times[0]:.2f}), "
        f"limit {LIMIT_S} s {verdict(worst, LIMIT_S)}; {cpu:.2f} CPU s; "
        f"a concept off {toggled:.2f} s; "
        f"{len(explained.concepts)} concepts, shares + residual - margin = {total - answer['margin']:.1e}, "
        f"gap {answer['residual_parts']['gap']:.2g} of a margin of {answer['margin']:.2g}"
    )
    return worst


def masks(lens: ConceptLens, classifier: Classifier) -> None:
    """20 masks (10 k, on and off) of N_PICTURES pictures: full passes that they cost."""
    inputs = lens.parts.backbone.preprocess([picture(s, SIZE) for s in range(N_PICTURES)])
    ranks = Masks("dataset", ranks_of(torch.rand(1, D_SAE)))
    labels = torch.zeros(N_PICTURES, dtype=torch.long)

    def ours() -> None:
        reading = lens.read(inputs, classifier.prompts)
        sweep(lens, classifier, reading, labels, [ranks], KS)

    def whole_pass() -> None:
        with torch.no_grad():
            classifier.logits(lens.parts.image_features(inputs, classifier.prompts))

    def naive_mask() -> None:
        """The whole model with a hook that encodes, masks and decodes densely, for one mask."""
        keep = (ranks.ranks[0] < 100).float()
        edit = lens.parts.backbone.edit(
            lens.layer, lambda h: lens.sae.decode(lens.sae.encode(h) * keep)
        )
        with edit, torch.no_grad():
            classifier.logits(lens.parts.image_features(inputs, classifier.prompts))

    whole_pass()
    one = min(seconds(whole_pass, time.process_time) for _ in range(2))
    own = min(seconds(ours, time.process_time) for _ in range(2))
    naive = 20 * seconds(naive_mask, time.process_time)
    print(
        f"20 masks of {N_PICTURES} pictures: {own:.1f} CPU s = {own / one:.2f} full passes of {one:.2f}, "
        f"limit {LIMIT_PASSES} {verdict(own, LIMIT_PASSES * one)}; the naive way "
        f"{naive:.0f} s (20 times one mask), {naive / own:.0f} times as long"
    )


@command
def main(_argv: list[str]) -> None:
    """Print one line a measurement."""
    torch.manual_seed(0)
    parts = ClipParts(backbone())
    names = [f"w{i}" for i in range(N_CLASSES)]
    maple = MapleHead(names, d_text=parts.d_text, d_vision=parts.d_vision, tail="")
    start = time.perf_counter()
    prompted = maple.classifier(parts)
    plain = Comparison(parts.backbone, random_sae(parts.backbone, "topk")).for_classes(
        names, ("a photo of a {}",)
    )
    print(
        f"two heads of {N_CLASSES} classes prepared in {time.perf_counter() - start:.1f} s (once)"
    )
    for architecture in ("topk", "relu"):
        sae = random_sae(parts.backbone, architecture)
        explain(parts, sae, (plain, prompted))
    masks(ConceptLens(parts, sae), prompted)
    peak = peak_gib()
    print(f"peak memory {peak:.2f} GiB, limit {LIMIT_GIB} GiB {verdict(peak, LIMIT_GIB)}")


if __name__ == "__main__":
    sys.exit(main())
