"""Steering measured: against the world's truth, as in the paper, and by the clock.

    python training/bench/steering.py --keep runs/steering     # goes on where it was stopped
    python training/bench/steering.py --only suppression       # one part of it
    python training/bench/steering.py --remedies               # all that was tried

Designs of latents against DiffMean, each tuned by the same budget on pairs of its own and measured on 1,200
others (`training.steering.contest`); one setting for all 120 kinds. All get the same labels of the same
selection scenes: which kinds a picture shows, and nothing of where. Counting is by words, greedily decoded.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from PIL import Image

from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.steering import Edit, Steerer, SteerRequest
from sae.steering.doses import dose_response
from sae.steering.edits import INSERT_DOSE
from sae.terminal import command
from sae.world.scenes import kind_names
from training.bench.gauges import peak_gib, seconds
from training.bench.gauges import verdict as within
from training.steering import protocol
from training.steering.contest import Bench, Entry, Settings, interval, verdict
from training.steering.evidence import Evidence, gather
from training.steering.line_up import DIFF_MEAN, putting_in, taking_out
from training.steering.paper_score import paper_scores
from training.steering.protocol import (
    DOSE,
    KindLatents,
    best_by_steering,
    candidate_lines,
    dose_lines,
    lower_latents,
    measure,
    set_latents,
)
from training.world.generator import images

PAPER_DOSE = 8.0
PARTS = ("insertion", "suppression", "score", "guesses", "speed", "full-size")
TARGETS = {"insertion": (0.8, 0.7, 0.8), "suppression": (0.8, 0.0, 0.8)}
"""Least share done, of kinds (insertion only), and of words kept."""
LIMITS = {"next tokens, new picture": 0.150, "captions with control, new picture": 1.5}
D_SAE, SIZE = 65_536, 336


def enter_all(bench: Bench, designs: dict[str, Settings], verb: str) -> dict[str, Entry]:
    """Tune and measure every design, a line each."""
    entries = {}
    for name, settings in designs.items():
        entry = entries[name] = bench.enter(name, settings)
        low, high = interval(entry.both.astype(float), bench.kinds)
        print(f"{name} ({entry.setting}; {entry.tuned:.1%} on validation):", flush=True)
        print(f"    {bench.outcome(entry).line(verb)}  95 % of both: {low:.1%} to {high:.1%}")
    return entries


def judge_all(bench: Bench, entries: dict[str, Entry], task: str) -> None:
    """Print who wins. Against DiffMean: the design of latents that the validation pairs like best."""
    theirs = [entry for name, entry in entries.items() if name.startswith(DIFF_MEAN)]
    fair = [entry for entry in theirs if "told" not in entry.name]
    ours = [entry for entry in entries.values() if entry not in theirs]
    best = max(ours, key=lambda entry: entry.tuned)
    rival = max(fair, key=lambda entry: entry.tuned)
    print(f"-> chosen on validation: {best.name} | {rival.name}")
    for one, other in [(best, each) for each in theirs] + [(each, rival) for each in ours]:
        if (one, other) != (best, rival):
            print(f"   {verdict(one, other, bench.kinds)}")
    print(f"-> {verdict(best, rival, bench.kinds)}")
    done, kinds, kept = TARGETS[task]
    reached = bench.outcome(best)
    good = reached.done >= done and reached.kinds >= kinds and reached.kept >= kept
    print(f"-> {'targets hold' if good else 'TARGETS MISSED'} for {best.name}")


def insertion(steerer: Steerer, evidence: Evidence, args: argparse.Namespace) -> None:
    """Print the table."""
    print(f"\nInsertion, one-object scenes, {args.per_kind} for each of {len(kind_names())} kinds")
    seed = protocol.INSERTION_SEED
    pairs = protocol.insertion_pairs(steerer, args.per_kind, seed=seed)
    own = protocol.insertion_pairs(steerer, 2, seed=seed + 100)
    best = best_by_steering(steerer, evidence.kinds, INSERT_DOSE, "replace", seed=seed + 200)
    bench = Bench(steerer, own, pairs, insert=True, folder=args.keep)
    designs = putting_in(evidence, best, steerer.sae.W_dec.detach())
    judge_all(bench, enter_all(bench, designs, "inserted"), "insertion")
    if args.remedies:
        for where, dose, n in [
            ("all", 1, 1), ("all", 2, 1), ("all", 4, 1), ("region", 4, 1), ("region", 8, 1),
            ("region", 16, 1), ("region", 4, 3), ("replace", 1, 1), ("replace", 2, 1),
        ]:  # fmt: skip
            tried = measure(steerer, pairs, set_latents(best, dose, where, n=n), insert=True)
            print(f"  {n} latent(s), {where}, {dose:g} × max: {tried.line('inserted')}")


def suppression(steerer: Steerer, evidence: Evidence, args: argparse.Namespace) -> None:
    """Print the table."""
    print(f"\nSuppression, {args.n_out} objects of two-object scenes whose caption names both")
    seed = protocol.SUPPRESSION_SEED
    pairs = protocol.suppression_pairs(steerer, round(0.6 * args.n_out), seed=seed)[: args.n_out]
    own = protocol.suppression_pairs(steerer, 200, seed=seed + 100)[:300]
    bench = Bench(steerer, own, pairs, insert=False, folder=args.keep)
    designs = taking_out(evidence, steerer.sae.W_dec.detach())
    judge_all(bench, enter_all(bench, designs, "removed"), "suppression")
    if args.remedies:
        for dose, n in [(0, 1), (-0.5, 1), (0, 3), (-0.25, 3), (0, 8), (-0.25, 8)]:
            tried = measure(steerer, pairs, lower_latents(evidence.kinds, dose, n=n), insert=False)
            print(f"  {n} latent(s) where they fire, {dose:g} × max: {tried.line('removed')}")


def score(steerer: Steerer, n_latents: int) -> None:
    """Print the paper's score."""
    print(f"\nThe paper's score, {PAPER_DOSE:g} × max on all tokens, plain replacement")
    scores = paper_scores(steerer, PAPER_DOSE, n_latents=n_latents, n_images=30)
    for name, value in scores.items():
        print(f"{name:<42} {value}")


def guesses(steerer: Steerer, selection: KindLatents, n: int) -> None:
    """Print how good candidates and dose ladders are."""
    pairs = protocol.insertion_pairs(steerer, 1, seed=protocol.INSERTION_SEED + 300)
    pairs = [pairs[place] for place in np.random.default_rng(0).choice(len(pairs), n, False)]
    print(f"\nWhich latents would do it? {n} pairs, {DOSE:g} × max on all tokens, after 'a'")
    for line in candidate_lines(steerer, pairs):
        print(line)
    print(f"\nDose and response, highest AUROC on all tokens, {n} pairs")
    for line in dose_lines(steerer, pairs, [selection.latents[pair.kind][0] for pair in pairs]):
        print(line)


def speed(steerer: Steerer, latent: int) -> None:
    """Print how long the app's questions take."""
    print("\nBundled model")
    for line in bundled_speed(steerer, latent):
        print(line)


def full_size(steerer: Steerer) -> None:
    """Print the overhead of editing beside a tower of the real size."""
    print("\nRandom CLIP ViT-L/14-336, SAE of 65,536 latents")
    for line in full_size_speed(steerer):
        print(line)
    print(f"peak memory of this process                 {peak_gib():.1f} GiB")


def timed(call: Callable[[], object], n: int, *, warm_up: int = 1) -> tuple[float, float]:
    """Median and worst seconds of `n` calls, after some that are not counted."""
    times = [seconds(call) for _ in range(warm_up + n)][warm_up:]
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
        median, worst = timed(call, n)
        limit = LIMITS.get(name)
        kept = "" if limit is None else f", limit {limit * 1e3:.0f} ms {within(worst, limit)}"
        yield f"{name:<38} {median * 1e3:6.1f} ms, worst {worst * 1e3:6.1f} ms{kept}"


@torch.no_grad()
def full_size_speed(bundled: Steerer) -> Iterator[str]:
    """A random CLIP ViT-L/14 (336 px) in a LLaVA with a small language model, and 65,536 latents."""
    steerer, prompt = _full_size(bundled), "user : <image> describe the image assistant :"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8))
    inputs = steerer.vlm.inputs(image, prompt)
    tower, _ = timed(lambda: steerer.vlm.tower(inputs["pixel_values"]), 2)
    yield f"vision tower alone, 24 layers            {tower * 1e3:7.0f} ms"
    prepared = steerer.prepare(image, prompt)
    fresh = prepared.activations
    cases: dict[str, tuple[Edit, ...]] = {
        "edit one latent": (Edit(5, "set", 9.0, "raw"),),
        "edit sixteen latents": tuple(Edit(n, "set", 9.0, "raw") for n in range(16)),
    }
    for name, edits in cases.items():
        took, _ = timed(lambda edits=edits: fresh.edited(edits), 5)
        yield f"{name:<40} {took * 1e3:7.1f} ms = {took / tower:.2%} of the tower"
    took, _ = timed(lambda: steerer.sae.encode_sparse(fresh.x), 1, warm_up=0)
    yield (
        f"encode all latents (only, replacement)   {took * 1e3:7.0f} ms = {took / tower:.1%} of the "
        "tower, once a picture"
    )
    hidden = fresh.edited(cases["edit one latent"])
    rerun, _ = timed(lambda: steerer.run(prepared, hidden), 3)
    plain, _ = timed(lambda: steerer.run(prepared, prepared.kept.hidden), 3)
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


@command
def main(argv: list[str]) -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--per-kind", type=int, default=10, help="insertion pictures for each kind")
    parser.add_argument("--n-out", type=int, default=1200, help="suppression pairs")
    parser.add_argument("--keep", type=Path, help="folder for what is measured, so that it goes on")
    parser.add_argument("--n-selection", type=int, default=1500, help="selection scenes")
    parser.add_argument("--n-latents", type=int, default=200, help="latents on the white picture")
    parser.add_argument("--n-pairs", type=int, default=40, help="pairs for candidates and doses")
    parser.add_argument("--remedies", action="store_true", help="every variant that was tried")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    args = parser.parse_args(argv)
    steerer = Steerer.from_pretrained("bundled")
    evidence = None
    if {"insertion", "suppression", "guesses"} & set(args.only):
        evidence = gather(steerer, args.n_selection)
        median = np.median(evidence.kinds.auroc)
        print(f"best latent per kind on selection scenes: median AUROC {median:.4f}")
    latent = int(steerer.max_activation.argmax())
    parts: dict[str, Callable[[], None]] = {
        "insertion": lambda: insertion(steerer, evidence, args),
        "suppression": lambda: suppression(steerer, evidence, args),
        "score": lambda: score(steerer, args.n_latents),
        "guesses": lambda: guesses(steerer, evidence.kinds, args.n_pairs),
        "speed": lambda: speed(steerer, latent),
        "full-size": lambda: full_size(steerer),
    }
    for name in PARTS:
        if name in args.only:
            start = time.perf_counter()
            parts[name]()
            print(f"({name}: {time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
