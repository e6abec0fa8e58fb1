"""Both papers' recipes: the options they set, and their losses computed again from the formulas."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae.model import SparseAutoencoder
from tests.training.training_parts import config, run
from training.loop.config import TrainConfig
from training.loop.distributed import Alone
from training.loop.objectives import ghost_errors
from training.loop.options import RECIPES, parse_config, with_recipe
from training.loop.results import training_json
from training.loop.run import Run
from training.loop.trainer import centre_and_scale, geometric_median
from training.loop.weights import TrainableSAE

NEEDED = ["--backbone", "b", "--data", "world", "--out", "o"]


def recipe_run(name: str, **changes: object) -> Run:
    """A started run of a recipe on the tiny backbone (width 32, 17 tokens)."""
    small = dataclasses.asdict(config(image_batch=8, buffer=2))
    given = {key: small[key] for key in ("backbone", "data", "out", "image_batch", "buffer")}
    options = with_recipe(name, {**given, "expansion": 4, "batch_size": 68, "steps": 40, **changes})
    made = run(TrainConfig(**options).for_width(32))
    assert made.start()
    return made


def scaled(made: Run, x: Tensor) -> tuple[TrainableSAE, Tensor]:
    """A copy of the weights, and what they see, in float64."""
    own = made.trainers[0]
    copy = TrainableSAE(own.config.arch, 32, own.config.d_sae, seed=0).double()
    copy.load_state_dict({n: p.double() for n, p in own.weights.state_dict().items()})
    return copy, (x / own.scale).double()


def patchsae_loss(w: TrainableSAE, z: Tensor, dead: Tensor) -> Tensor:
    """PatchSAE's loss, written out for dense float64 arrays."""
    h_pre = (z - w.b_dec) @ w.W_enc + w.b_enc
    h = torch.relu(h_pre)
    z_hat = h @ w.W_dec + w.b_dec
    mse = (z_hat - z) ** 2 / z.norm(dim=1)[:, None]
    loss = mse.mean() + 8e-5 * h.abs().sum(1).mean()
    if dead.any():
        r = (z - z_hat).detach()
        g = torch.exp(h_pre[:, dead]) @ w.W_dec[dead]
        g = g * (r.norm(dim=1) / (1e-6 + 2 * g.norm(dim=1))).detach()[:, None]
        ghost = (g - r) ** 2 / r.norm(dim=1)[:, None]
        loss = loss + (ghost * (mse / (ghost + 1e-6)).detach()).mean()
    return loss


@pytest.mark.parametrize("n_dead", [0, 5])
def test_the_patchsae_recipe_trains_on_its_loss(n_dead: int) -> None:
    made = recipe_run("patchsae")
    own = made.trainers[0]
    with torch.no_grad():
        own.weights.b_enc[:n_dead] = -3.0
    own.since_fired[:n_dead] = 10**9
    x = next(made.batches())
    w, z = scaled(made, x)
    expected = patchsae_loss(w, z, own.dead)
    expected.backward()
    assert own.scale == 1.0
    assert int(own.dead.sum()) == n_dead
    out = own._objective(x, own.dead)
    out.loss.backward()
    assert float(out.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in own.weights.named_parameters():
        wanted = w.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad.double(), wanted, rtol=1e-3, atol=1e-6, msg=name)
    if n_dead:
        assert float(own.weights.W_enc.grad[:, :n_dead].abs().sum()) > 0


def test_a_ghost_gradient_by_hand() -> None:
    # One token, one dead latent: r = (3, 4), ||r|| = 5; h = ln 2, W = (1, 0), so g = (2, 0), halved
    # to r's norm: 2 * 5 / (2 * 2) = 2.5 along (1, 0). Errors (0.5, 16) / 5 = (0.05, 3.2).
    h = torch.tensor([[math.log(2.0)]], dtype=torch.float64, requires_grad=True)
    W = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    residual = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    errors = torch.tensor([[1.0, 6.4]], dtype=torch.float64)
    found = ghost_errors(residual, h, W, errors)
    # each is scaled to the ordinary error beside it
    torch.testing.assert_close(found, errors, rtol=1e-4, atol=0)
    found.sum().backward()
    # d/dg of (g - r)^2 / 5 * (error / ghost): 2 (-0.5) / 5 * 20 = -4 and 2 (-4) / 5 * 2 = -3.2;
    # dg/dh = 2 * 1.25 * W = (2.5, 0), dg/dW = exp(h) * 1.25 = 2.5
    assert float(h.grad) == pytest.approx(-10.0, rel=1e-4)
    torch.testing.assert_close(
        W.grad, torch.tensor([[-10.0, -8.0]], dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_the_cls_coefficient_weighs_cls_tokens_alone() -> None:
    made = recipe_run("patchsae", mse_cls=3.0)
    x = next(made.batches())
    cls = made.stream.cls
    assert 0 < int(cls.sum()) < len(cls)
    w, z = scaled(made, x)
    h = torch.relu((z - w.b_dec) @ w.W_enc + w.b_enc)
    mse = (h @ w.W_dec + w.b_dec - z) ** 2 / z.norm(dim=1)[:, None]
    expected = (mse * torch.where(cls, 3.0, 1.0)[:, None]).mean() + 8e-5 * h.sum(1).mean()
    (out,) = made.step(x)
    assert float(out.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def pach_loss(w: TrainableSAE, z: Tensor, dead: Tensor) -> Tensor:
    """Matryoshka BatchTopK's loss with AuxK * 0.3, written out for dense float64 arrays."""
    f0 = torch.relu((z - w.b_dec) @ w.W_enc + w.b_enc)
    f = f0 * (f0 >= f0.flatten().topk(20 * len(z)).values[-1])
    sizes = [8, 16, 32, 72]  # int(fraction * 128), the rest to the last
    ends = list(itertools.accumulate(sizes))
    levels = [f[:, :end] @ w.W_dec[:end] + w.b_dec for end in ends]
    # the mean over groups of each level's loss divided by the number of groups: 1 / G^2
    loss = sum((z - x_hat).square().sum(1).mean() for x_hat in levels) / 16
    e = (z - levels[-1]).detach()
    revived = torch.zeros_like(f0)
    top = f0[:, dead].topk(min(16, int(dead.sum())), dim=1)
    revived[:, dead] = torch.zeros_like(f0[:, dead]).scatter(1, top.indices, top.values)
    missed = (e - revived @ w.W_dec).square().sum(1).mean()
    return loss + 0.3 * missed / (e - e.mean(0)).square().sum(1).mean()


@pytest.mark.parametrize("recipe", ["patchsae", "pach"])
def test_three_steps_are_those_of_the_paper(recipe: str) -> None:
    """Adam on the dense loss, as the papers' code orders it."""
    own_options = {"batch_size": 64, "aux": 0.3} if recipe == "pach" else {}
    made = recipe_run(recipe, **own_options)
    own, batches = made.trainers[0], made.batches()
    loss_of = patchsae_loss if recipe == "patchsae" else pach_loss
    w, _ = scaled(made, torch.zeros(1, 32))
    adam = torch.optim.Adam(w.parameters(), betas=(0.9, 0.999))
    peak = 4e-4 if recipe == "patchsae" else 0.0256 / math.sqrt(128)
    for step in range(3):
        own.since_fired[::7] = 10**9
        x, dead = next(batches), own.dead.clone()
        if recipe == "patchsae":  # rows get norm 1 before a forward, nothing is clipped
            w.W_dec.data /= w.W_dec.data.norm(dim=1, keepdim=True)
        loss = loss_of(w, x.double() / own.scale, dead)
        adam.zero_grad()
        loss.backward()
        rows, grad = w.W_dec.data, w.W_dec.grad
        grad -= (grad * rows).sum(1, keepdim=True) * rows
        if recipe == "pach":
            torch.nn.utils.clip_grad_norm_(w.parameters(), 1.0)
        adam.param_groups[0]["lr"] = peak * min(1.0, (step + 1) / 5)  # warm-up of 40 / 10 steps
        adam.step()
        if recipe == "pach":
            w.W_dec.data /= w.W_dec.data.norm(dim=1, keepdim=True)
        (out,) = made.step(x)
        assert float(out.loss.detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
    w.normalise_decoder()
    for name, parameter in own.weights.named_parameters():
        wanted = w.get_parameter(name).detach()
        torch.testing.assert_close(parameter.detach().double(), wanted, rtol=0, atol=2e-5, msg=name)


def test_pach_divides_by_the_root_mean_square_norm_and_folds_it_back(tmp_path: Path) -> None:
    made = recipe_run("pach", batch_size=64, out=str(tmp_path))
    own, buffer = made.trainers[0], made.stream.first_buffer()
    assert own.scale == pytest.approx(float(buffer.square().sum(1).mean().sqrt()), rel=1e-5)
    first = geometric_median(buffer[:64])
    torch.testing.assert_close(own.weights.b_dec * own.scale, first)
    assert made.where.tokens == "cls"
    own.scale *= 10  # far from 1, as in real models
    made.step(next(made.batches()))
    own.threshold.fill_(0.2)
    made.save()
    sae = SparseAutoencoder.from_pretrained(tmp_path)
    inside = (buffer / own.scale - own.weights.b_dec) @ own.weights.W_enc + own.weights.b_enc
    h = (buffer - sae.b_dec) @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(h, inside.detach() * own.scale, rtol=1e-4, atol=1e-4)
    # an artifact takes raw activations: the same latents, the same reconstruction
    assert sae.cfg.threshold == pytest.approx(0.2 * own.scale)
    kept = inside.detach() * (inside.detach() > 0.2)
    assert 0 < int((kept > 0).sum()) < kept.numel()
    x_hat = (kept @ own.weights.W_dec + own.weights.b_dec).detach() * own.scale
    with torch.no_grad():
        torch.testing.assert_close(sae.decode(sae.encode(buffer)), x_hat, rtol=1e-4, atol=1e-4)


def test_patchsae_starts_from_the_median_of_whole_images() -> None:
    tokens = torch.randn(6 * 4, 3, generator=torch.Generator().manual_seed(0))
    settings = config(b_dec="image_median", scale="none", batch_size=20)
    centre, scale = centre_and_scale(tokens, settings, 4, Alone())
    # one batch of 20 tokens is five images; each is one point of 12 numbers
    expected = geometric_median(tokens[:20].view(5, 12)).view(4, 3).mean(0)
    torch.testing.assert_close(centre, expected)
    assert scale == 1.0
    for how, wanted in (("mean", tokens.mean(0)), ("zero", torch.zeros(3))):
        found, _ = centre_and_scale(tokens, config(b_dec=how), 4, Alone())
        torch.testing.assert_close(found, wanted)


def test_one_flag_sets_everything() -> None:
    patchsae = parse_config([*NEEDED, "--recipe", "patchsae"]).for_width(768)
    assert (patchsae.arch, patchsae.d_sae, patchsae.l1) == ("relu", 49_152, 8e-5)
    assert (patchsae.batch_size, patchsae.steps) == (25_216, 20_480)
    assert patchsae.dead_tokens(patchsae.batch_size) == 65 * 25_216
    assert patchsae.learning_rate(20_479) == patchsae.learning_rate(500) == 4e-4
    assert patchsae.learning_rate(249) == pytest.approx(2e-4, rel=0.01)
    assert (patchsae.layer, patchsae.tokens, patchsae.scale) == (-2, "all", "none")
    assert (patchsae.loss, patchsae.ghost, patchsae.mse_cls) == ("patchsae", True, 1.0)
    assert (patchsae.init, patchsae.b_dec) == ("independent", "image_median")
    assert (patchsae.clip, patchsae.seed, patchsae.checkpoint_every) == (0.0, 42, 2048)
    pach = parse_config([*NEEDED, "--recipe", "pach"]).for_width(1024)
    assert (pach.arch, pach.k, pach.d_sae, pach.tokens) == ("matryoshka", 20, 65_536, "cls")
    assert pach.learning_rate(1000) == pach.learning_rate(99_999) == pytest.approx(1e-4)
    assert pach.dead_tokens(4096) == 10_000_000
    assert pach.threshold_memory(1000) is None
    assert pach.threshold_memory(1001) == 0.999
    assert (pach.layer, pach.scale, pach.init, pach.b_dec) == (
        -2,
        "norm",
        "uniform",
        "batch_median",
    )
    assert (pach.aux, pach.clip, pach.groups) == (0.03, 1.0, (0.0625, 0.125, 0.25, 0.5625))
    assert (pach.batch_size, pach.steps, pach.checkpoint_every) == (4096, 100_000, 20_000)
    assert pach.learning_rate(500) == pytest.approx(0.5e-4, rel=0.01)


def test_what_is_given_wins_over_the_recipe_and_short_runs_shrink() -> None:
    words = "--recipe pach --d-sae 512 --arch batch_topk --steps 100 --batch-size 64"
    found = parse_config([*NEEDED, *words.split()])
    assert (found.arch, found.d_sae, found.expansion) == ("batch_topk", 512, None)
    assert (found.warmup, found.threshold_start, found.dead_after) == (10, 50, 640)
    assert found.checkpoint_every == 20
    assert found.threshold_memory(51) == pytest.approx(0.9)
    kept = parse_config([*NEEDED, *words.split(), "--warmup", "77"])
    assert kept.warmup == 77
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert all(recipe.keys() <= fields for recipe in RECIPES.values())


def test_training_json_has_every_option() -> None:
    made = parse_config([*NEEDED, "--recipe", "patchsae"]).for_width(768)
    run = {
        "command": "c",
        "dataset": "d",
        "origin": {"data": "d", "held_out": 1},
        "n_unreadable": 0,
        "launched": {"mixed_precision": "no"},
    }
    found = training_json(made, **run, n_processes=1, n_images=1, seconds=1, n_steps=9, scale=1.0)
    text = json.dumps(found)
    assert found["recipe"] == "patchsae"
    assert found["options"]["ghost"] is True
    assert found["options"]["d_sae"] == 49_152
    assert "image_median" in text
