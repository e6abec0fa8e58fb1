"""Both papers' recipes as options: one name sets everything that a paper fixes.

Knows numbers and how they fit into a short run. Knows nothing of parsing or training. What is given
explicitly always wins over the recipe.

PatchSAE (Lim et al., ICLR 2025, section 3 and appendix A): ReLU and L1 on all tokens of the layer
before the last, 64 times as many latents, each token's squared error divided by its norm, ghost
gradients, no scaling of the activations. Its code gives the decoder rows norm 1 before every
forward; here they get it after every step, which is the same training and saves unit rows.

Pach et al. (NeurIPS 2025, section 3 and appendix F): Matryoshka BatchTopK on CLS tokens that are
divided by their root mean square norm, AuxK, and one threshold averaged over the batches. The
learning rate is 0.0256 / sqrt(d_sae), as in its code (the paper prints five times as much).
"""

from collections.abc import Mapping
from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "patchsae": {
        "arch": "relu",
        "expansion": 64,
        "layer": -2,
        "tokens": "all",
        "loss": "patchsae",
        "l1": 8e-5,
        "mse_cls": 1.0,
        "ghost": True,
        "dead_steps": 64,
        "init": "independent",
        "b_dec": "image_median",
        "scale": "none",
        "batch_size": 128 * 197,
        "steps": 20_480,
        "lr": 4e-4,
        "warmup": 500,
        "decay": 0.0,
        "clip": 0.0,
        "checkpoint_every": 2048,
        "seed": 42,
    },
    "pach": {
        "arch": "matryoshka",
        "expansion": 64,
        "k": 20,
        "groups": (0.0625, 0.125, 0.25, 0.5625),
        "layer": -2,
        "tokens": "cls",
        "aux": 0.03,
        "dead_after": 10_000_000,
        "init": "uniform",
        "b_dec": "batch_median",
        "scale": "norm",
        "batch_size": 4096,
        "steps": 100_000,
        "warmup": 1000,
        "decay": 0.0,
        "clip": 1.0,
        "threshold_start": 1000,
        "threshold_decay": 0.999,
        "checkpoint_every": 20_000,
    },
}


def with_recipe(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of recipe `name` under those that were `given` explicitly.

    In a run that is given fewer steps than the paper's, warm-up, the start of the threshold, the
    patience with dead latents and the time between checkpoints shrink to a tenth (the threshold's
    start: half; checkpoints: a fifth) of the run, so that each of them still happens.
    """
    recipe = dict(RECIPES[name])
    if "d_sae" in given:
        recipe.pop("expansion", None)
    options = {**recipe, **given, "recipe": name}
    steps = options["steps"]
    tokens = steps * options["batch_size"]
    limits = {
        "warmup": steps // 10,
        "threshold_start": steps // 2,
        "threshold_decay": 1 - 1 / max(1, steps // 10),
        "dead_steps": max(1, steps // 10),
        "dead_after": max(1, tokens // 10),
        "checkpoint_every": max(1, steps // 5),
    }
    for option, limit in limits.items():
        if option in recipe and option not in given:
            options[option] = min(recipe[option], limit)
    return options
