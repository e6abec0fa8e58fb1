"""Steering measured: against the world's truth, as in the paper, and by the clock.

    python training/bench/steering.py            # two to three minutes on two cores
    python training/bench/steering.py --per-kind 10 --n-scenes 400 --remedies  # all that was tried
    python training/bench/steering.py --only suppression                      # one part of it

One latent and one fixed dose for all kinds. The best latent for insertion is, of the four with the
highest image-level AUROC on selection scenes, the one that inserts best on selection pictures; for
suppression the one with the highest AUROC. DiffMean gets the same labels, and of eight variants the
one that serves it best on pictures of its own. Counting is by words, greedily decoded.
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
from sae.steering.edits import INSERT_DOSE, SUPPRESS_DOSE
from sae.terminal import command
from sae.world.scenes import kind_names
from training.bench.gauges import peak_gib, seconds, verdict
from training.steering import protocol
from training.steering.paper_score import paper_scores
from training.steering.protocol import (
    DOSE,
    KindLatents,
    add_direction,
    best_by_steering,
    candidate_lines,
    choose_latents,
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
DIFF_MEAN_DOSES = {"all": (4, 8), "region": (32, 64, 128), "replace": (16, 32, 64)}
LOWER_DOSES = (2, 2.5, 3, 4)
LIMITS = {"next tokens, new picture": 0.150, "captions with control, new picture": 1.5}
D_SAE, SIZE = 65_536, 336


def targets(outcome: protocol.Outcome, task: str) -> str:
    """Whether the targets hold."""
    done, kinds, kept = TARGETS[task]
    good = outcome.done >= done and outcome.kinds >= kinds and outcome.kept >= kept
    return "targets hold" if good else "TARGETS MISSED"


def best_diff_mean(
    steerer: Steerer, pairs: list, selection: KindLatents, *, insert: bool
) -> tuple[str, protocol.Change]:
    """The DiffMean variant that does both best on `pairs`: its name and change."""
    directions, mean = selection.diff_mean, selection.mean
    if insert:
        options = [(where, dose) for where, doses in DIFF_MEAN_DOSES.items() for dose in doses]
    else:
        options = [("all", -dose) for dose in LOWER_DOSES]
    scored = [
        (
            measure(
                steerer, pairs, add_direction(directions, mean, dose, where), insert=insert
            ).both,
            i,
        )
        for i, (where, dose) in enumerate(options)
    ]
    where, dose = options[max(scored)[1]]
    return f"{where}, {dose:+g} × the difference", add_direction(directions, mean, dose, where)


def insertion(steerer: Steerer, selection: KindLatents, per_kind: int, *, remedies: bool) -> None:
    """Print the table."""
    print(f"\nInsertion, one-object scenes, {per_kind} for each of {len(kind_names())} kinds")
    seed = protocol.INSERTION_SEED
    pairs = protocol.insertion_pairs(steerer, per_kind, seed=seed)
    own = protocol.insertion_pairs(steerer, 1, seed=seed + 100)
    best = best_by_steering(steerer, selection, INSERT_DOSE, "replace", seed=seed + 200)
    rows = {
        f"best latent in a 5 × 5 region, {INSERT_DOSE:g} × max": (best, "replace"),
        f"highest AUROC in a 5 × 5 region, {INSERT_DOSE:g} × max": (selection, "replace"),
        f"best latent on all tokens, {INSERT_DOSE:g} × max": (best, "all"),
    }
    outcomes = {}
    for row, (chosen, where) in rows.items():
        change = set_latents(chosen, INSERT_DOSE, where)
        outcomes[row] = measure(steerer, pairs, change, insert=True)
        print(f"{row}: {outcomes[row].line('inserted')}")
    latent = next(iter(outcomes.values()))
    name, change = best_diff_mean(steerer, own, selection, insert=True)
    diff = measure(steerer, pairs, change, insert=True)
    print(f"DiffMean ({name}): {diff.line('inserted')}")
    masks = add_direction(selection.diff_mean_masks, selection.mean, 2.0, "region")
    told = measure(steerer, pairs, masks, insert=True)
    print(f"DiffMean told the objects' masks (region, +2): {told.line('inserted')}")
    print(
        f"-> {targets(latent, 'insertion')}; both, against DiffMean: {latent.both - diff.both:+.1%}"
    )
    if remedies:
        for where, dose, n in [
            ("all", 1, 1), ("all", 2, 1), ("region", 4, 1), ("region", 8, 1), ("region", 16, 1),
            ("region", 4, 3), ("replace", 1, 1), ("replace", 2, 1), ("replace", 3, 1),
            ("replace", 6, 1), ("replace", 2, 2), ("replace", 2, 3),
        ]:  # fmt: skip
            tried = measure(steerer, pairs, set_latents(best, dose, where, n=n), insert=True)
            print(f"  {n} latent(s), {where}, {dose:g} × max: {tried.line('inserted')}")


def suppression(steerer: Steerer, selection: KindLatents, n_scenes: int, *, remedies: bool) -> None:
    """Print the table."""
    print("\nSuppression, two-object scenes whose caption names both")
    seed = protocol.SUPPRESSION_SEED
    pairs = protocol.suppression_pairs(steerer, n_scenes, seed=seed)
    own = protocol.suppression_pairs(steerer, 60, seed=seed + 100)
    latent = measure(steerer, pairs, lower_latents(selection, SUPPRESS_DOSE), insert=False)
    print(f"best latent where it fires, {SUPPRESS_DOSE:g} × max: {latent.line('removed')}")
    off = measure(steerer, pairs, lower_latents(selection, 0.0), insert=False)
    print(f"best latent switched off: {off.line('removed')}")
    name, change = best_diff_mean(steerer, own, selection, insert=False)
    diff = measure(steerer, pairs, change, insert=False)
    print(f"DiffMean ({name}): {diff.line('removed')}")
    print(
        f"-> {targets(latent, 'suppression')}; both, against DiffMean: {latent.both - diff.both:+.1%}"
    )
    if remedies:
        for dose, n in [(-0.5, 1), (-2, 1), (0, 3), (-0.25, 3), (-0.5, 3), (0, 8), (-0.25, 8)]:
            tried = measure(steerer, pairs, lower_latents(selection, dose, n=n), insert=False)
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
        kept = "" if limit is None else f", limit {limit * 1e3:.0f} ms {verdict(worst, limit)}"
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
    parser.add_argument("--per-kind", type=int, default=4, help="insertion pictures for each kind")
    parser.add_argument("--n-scenes", type=int, default=200, help="suppression scenes")
    parser.add_argument("--n-selection", type=int, default=1500, help="selection scenes")
    parser.add_argument("--n-latents", type=int, default=200, help="latents on the white picture")
    parser.add_argument("--n-pairs", type=int, default=40, help="pairs for candidates and doses")
    parser.add_argument("--remedies", action="store_true", help="every variant that was tried")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    args = parser.parse_args(argv)
    steerer = Steerer.from_pretrained("bundled")
    selection = None
    if {"insertion", "suppression", "guesses"} & set(args.only):
        selection = choose_latents(steerer, args.n_selection)
        median = np.median(selection.auroc)
        print(f"best latent per kind on selection scenes: median AUROC {median:.4f}")
    latent = int(steerer.max_activation.argmax())
    parts: dict[str, Callable[[], None]] = {
        "insertion": lambda: insertion(steerer, selection, args.per_kind, remedies=args.remedies),
        "suppression": lambda: suppression(
            steerer, selection, args.n_scenes, remedies=args.remedies
        ),
        "score": lambda: score(steerer, args.n_latents),
        "guesses": lambda: guesses(steerer, selection, args.n_pairs),
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
