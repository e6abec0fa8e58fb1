"""An architecture and its objective, both defined outside the package, trained by the command."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae.architectures import ARCHITECTURES, Architecture, Settings, Vectors
from sae.model import SparseAutoencoder
from tests.training.training_parts import backbone, config, pictures, run
from training.loop.objectives import (
    OBJECTIVES,
    L1Objective,
    Objective,
    StepOutput,
    objective_for,
    register_objective,
    reported,
)
from training.loop.weights import TrainableSAE
from training.train import train


def soft_threshold(h: Tensor, cfg: Settings, vectors: Vectors) -> Tensor:
    """What exceeds the latent's own threshold."""
    del cfg
    return (h - vectors["threshold"]).relu()


class SoftObjective(Objective):
    """Squared error + l1 * mean L1 of the latents, thresholds trained along."""

    def forward(self, x: Tensor, dead: Tensor, cls: Tensor | None = None) -> StepOutput:
        del dead, cls
        w = self.weights
        h = torch.addmm(w.b_enc, x - w.b_dec, w.W_enc)
        latents = (h - w.log_threshold.exp()).relu()
        x_hat = torch.addmm(w.b_dec, latents, w.W_dec)
        loss = (x_hat - x).square().sum(1).mean() + self.terms.l1 * latents.sum(1).mean()
        return reported(loss, x, x_hat, latents)


@pytest.fixture
def soft(monkeypatch: pytest.MonkeyPatch) -> Architecture:
    """Row and objective, registered until the test ends."""
    row = Architecture("soft", "soft", soft_threshold, threshold="latent", objective="soft")
    monkeypatch.setitem(ARCHITECTURES, "soft", row)
    monkeypatch.setitem(OBJECTIVES, "soft", SoftObjective)
    return row


def test_it_is_trained_and_leaves_an_artifact(soft: Architecture, tmp_path: Path) -> None:
    settings = config(tmp_path / "run", arch="soft", steps=20, l1=0.01)
    made = run(settings)
    assert train(settings, made.accelerator, backbone(), pictures(), pictures(8), "the command")
    sae = SparseAutoencoder.from_pretrained(tmp_path / "run")
    assert sae.architecture is soft
    assert bool((sae.threshold > 0).all())
    assert not torch.equal(sae.threshold, sae.threshold[:1].expand_as(sae.threshold))


def test_an_objective_s_name_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "soft", SoftObjective)
    del OBJECTIVES["soft"]
    assert register_objective("soft", SoftObjective) is OBJECTIVES["soft"]
    with pytest.raises(ValueError, match="there is an objective 'l1' already"):
        register_objective("l1", L1Objective)


def test_what_names_no_objective_cannot_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Architecture("soft", "soft threshold", soft_threshold, threshold="latent")
    monkeypatch.setitem(ARCHITECTURES, "soft", row)
    weights = TrainableSAE("soft", 8, 16, seed=0)
    with pytest.raises(ValueError, match="--arch soft cannot be trained: its objective is None"):
        objective_for(weights, "soft", k=4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_names_one(name: str) -> None:
    assert ARCHITECTURES[name].objective in OBJECTIVES
