"""A full training step of another library, timed: python training/bench/peers/step.py LIBRARY N_STEPS

Runs in that library's own environment (environments.sh makes them). Each library trains as its own
documentation does, with Adam at 3e-4 in float32. Knows nothing of this project.
"""

import contextlib
import io
import sys
import types
import warnings
from collections.abc import Callable

import torch
from timing import BATCH, D_IN, D_SAE, K, timed

Step = Callable[[torch.Tensor], object]


def eai_sparsify() -> Step:
    """TopK with its sparse backward; the loss is its FVU."""
    torch.cuda.is_bf16_supported = lambda *_, **__: False  # asked at import, with no GPU either
    from sparsify import Sae, SaeConfig

    sae = Sae(D_IN, SaeConfig(expansion_factor=D_SAE // D_IN, k=K), device="cpu")
    sae = sae.to(torch.float32)
    adam = torch.optim.Adam(sae.parameters(), lr=3e-4)

    def step(x: torch.Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        sae(x=x, dead_mask=None).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.step()
        adam.zero_grad()

    return step


def saelens(kind: str) -> Step:
    """Its trainer's step."""
    import sae_lens
    from sae_lens.config import SAETrainerConfig

    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")
    sae = getattr(sae_lens, f"{kind}TrainingSAE")(config(d_in=D_IN, d_sae=D_SAE, k=K, device="cpu"))
    settings = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=1000 * BATCH,
        train_batch_size_samples=BATCH,
        device="cpu",
        autocast=False,
        lr=3e-4,
        lr_end=3e-5,
        lr_scheduler_name="constant",
        lr_warm_up_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_decay_steps=0,
        n_restart_cycles=1,
        dead_feature_window=1000,
        feature_sampling_window=2000,
        logger=sae_lens.LoggingConfig(log_to_wandb=False),
    )
    trainer = sae_lens.SAETrainer(cfg=settings, sae=sae, data_provider=iter(()))

    def step(x: torch.Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return step


def dictionary_learning(module: str, kind: str) -> Step:
    """Its trainer's update."""
    from importlib import import_module

    nothing = types.ModuleType("nnsight")  # wanted by its activation buffer only
    nothing.LanguageModel = object
    sys.modules.setdefault("nnsight", nothing)
    trainer = getattr(import_module(f"dictionary_learning.trainers.{module}"), kind)(
        steps=1000,
        activation_dim=D_IN,
        dict_size=D_SAE,
        k=K,
        layer=0,
        lm_name="x",
        lr=3e-4,
        warmup_steps=1,
        device="cpu",
        seed=0,
    )
    numbers = iter(range(1000))
    return lambda x: trainer.update(next(numbers), x)


class Anything(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> "Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)


def overcomplete(kind: str, k: int) -> Step:
    """Its training function on one batch."""
    for name in ("torchvision", "torchvision.transforms", "timm", "cv2"):  # for backbones and plots
        sys.modules.setdefault(name, Anything(name))
    from overcomplete import sae as library

    sae = getattr(library, kind)(D_IN, nb_concepts=D_SAE, top_k=k, device="cpu")
    adam = torch.optim.Adam(sae.parameters(), lr=3e-4)

    def error(x: torch.Tensor, x_hat: torch.Tensor, *_: object) -> torch.Tensor:
        return (x - x_hat).square().mean()

    def step(x: torch.Tensor) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            library.train_sae(sae, [x], error, adam, nb_epochs=1, monitoring=1, device="cpu")

    return step


LIBRARIES: dict[str, Callable[[], Step]] = {
    "eai-sparsify topk": eai_sparsify,
    "SAELens topk": lambda: saelens("TopK"),
    "SAELens batchtopk": lambda: saelens("BatchTopK"),
    "overcomplete topk": lambda: overcomplete("TopKSAE", K),
    "overcomplete batchtopk": lambda: overcomplete("BatchTopKSAE", K * BATCH),
    "dictionary-learning topk": lambda: dictionary_learning("top_k", "TopKTrainer"),
    "dictionary-learning batchtopk": lambda: dictionary_learning("batch_top_k", "BatchTopKTrainer"),
}

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    timed(LIBRARIES[sys.argv[1]](), int(sys.argv[2]))
