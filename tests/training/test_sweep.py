"""Several SAEs from one stream: what a sweep may say, and that each learns as if it were alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from sae.backbones import Backbone
from sae.model import SparseAutoencoder
from tests.training.training_parts import backbone, config, pictures
from training.loop.config import TrainConfig
from training.loop.options import members
from training.train import train


def go(settings: TrainConfig) -> bool:
    return train(settings, Accelerator(cpu=True), backbone(), pictures(), pictures(8), "cmd")


def names(found: list[TrainConfig]) -> list[str]:
    return [Path(member.out).name for member in found]


def test_every_combination_of_the_lists() -> None:
    found = members(config("runs", sweep="d_sae=64,128; k=2,4", push_to="me/sae"), 32)
    assert names(found) == ["d_sae-64_k-2", "d_sae-64_k-4", "d_sae-128_k-2", "d_sae-128_k-4"]
    assert [(one.d_sae, one.k) for one in found] == [(64, 2), (64, 4), (128, 2), (128, 4)]
    assert found[3].push_to == "me/sae-d_sae-128_k-4"
    assert members(config("runs", expansion=4), 32)[0].d_sae == 128


def test_files_say_the_same(tmp_path: Path) -> None:
    lists, runs = tmp_path / "lists.toml", tmp_path / "runs.json"
    lists.write_text('arch = ["topk", "batch_topk"]\nlr = [1e-3]\n')
    runs.write_text('{"runs": [{"expansion": 2, "k": 3}, {"arch": "matryoshka", "ghost": false}]}')
    assert names(members(config("runs", sweep=str(lists)), 32)) == [
        "arch-topk_lr-0.001",
        "arch-batch_topk_lr-0.001",
    ]
    found = members(config("runs", sweep=str(runs)), 32)
    assert [(one.arch, one.d_sae, one.k) for one in found] == [
        ("topk", 64, 3),
        ("matryoshka", 64, 4),
    ]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("d_sae", "'d_sae' is not NAME=VALUE"),
        ("layer=1,2", "'layer' cannot differ between SAEs of one stream; these can: arch, d_sae"),
        ("batch_size=4", "'batch_size' cannot differ"),
        ("nonsense=4", "'nonsense' cannot differ"),
        ("k=two", "k = 'two' is not int"),
        ("k=1.5", "k = 1.5 is not int"),
        ("ghost=1", "ghost = 1 is not bool"),
        ("k=4,4", "asks for the same SAE twice"),
        ("k=99;d_sae=8", "--k 99 is larger than --d-sae 8"),
        ("", "asks for 0 SAEs"),
        ("k=", "k = '' is not int"),
        ("seed=" + ",".join(map(str, range(65))), "asks for 65 SAEs; give 1 to 64"),
        ("none.json", "none.json cannot be read"),
        ("arch=gated", "gated"),
    ],
)
def test_what_cannot_be_swept_is_one_line(sweep: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        members(config("runs", sweep=sweep), 32)


def test_the_backbone_runs_once_for_all(tmp_path: Path, monkeypatch) -> None:
    seen, activations = [0], Backbone.activations

    def counted(self: Backbone, images: Any, layer: int) -> torch.Tensor:
        found = activations(self, images, layer)
        seen[-1] += len(found)
        return found

    monkeypatch.setattr(Backbone, "activations", counted)
    short = {"steps": 4, "image_batch": 4, "buffer": 2}
    assert go(config(tmp_path / "alone", **short))
    seen.append(0)
    assert go(config(tmp_path / "sweep", **short, sweep="k=2,3,4"))
    assert 0 < seen[1] < 2 * seen[0]  # one round may have been read ahead


def test_each_sae_is_the_one_that_is_trained_alone_and_the_sweep_resumes(tmp_path: Path) -> None:
    swept = {"sweep": "arch=topk,batch_topk;d_sae=64,96", "checkpoint_every": 8, "dead_after": 64}
    assert go(config(tmp_path / "sweep", **swept))
    alone = config(tmp_path / "alone", arch="batch_topk", d_sae=96, dead_after=64)
    assert go(alone)
    one = SparseAutoencoder.from_pretrained(tmp_path / "alone")
    folder = tmp_path / "sweep" / "arch-batch_topk_d_sae-96"
    other = SparseAutoencoder.from_pretrained(folder)
    assert one.cfg == other.cfg
    for name, expected in one.named_parameters():
        assert torch.equal(other.get_parameter(name), expected), name
    figures = [json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "alone", folder)]
    assert figures[0] == figures[1]
    folders = [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]
    assert len(folders) == 4
    wanted = {"config.json", "metrics.json", "training.json", "progress.jsonl", "curves.png"}
    assert all(wanted <= {path.name for path in found.iterdir()} for found in folders)
    assert (tmp_path / "sweep" / "curves.png").is_file()
    # one SAE's newest checkpoint is lost: all go back to the newest that they share
    lost = folder / "checkpoints" / "step_00000016" / "state.json"
    lost.write_text("{")
    assert go(config(tmp_path / "sweep", **swept, resume=True))
    again = SparseAutoencoder.from_pretrained(folder)
    assert torch.equal(again.W_dec, one.W_dec)
