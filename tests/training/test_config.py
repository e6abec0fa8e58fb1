"""The command line: complete, readable, and strict before anything is loaded."""

import dataclasses

import pytest

from training.loop.config import TrainConfig
from training.loop.options import parse_config

NEEDED = ["--backbone", "bundled", "--data", "world", "--out", "runs/x"]


def test_the_contract_command() -> None:
    words = ["--layer", "-2", "--arch", "topk", "--d-sae", "1024", "--k", "16", "--steps", "100"]
    found = parse_config([*NEEDED, *words])
    assert (found.layer, found.arch, found.d_sae, found.k) == (-2, "topk", 1024, 16)
    assert found == TrainConfig("bundled", "world", "runs/x", d_sae=1024, steps=100)


def test_every_option_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_config(["--help"])
    text = capsys.readouterr().out
    for option in dataclasses.fields(TrainConfig):
        assert f"--{option.name.replace('_', '-')}" in text
        assert option.metadata["help"]
    assert "accelerate launch training/train.py --backbone bundled" in text


def test_lists_and_switches() -> None:
    words = ["--arch", "matryoshka", "--groups", "0.25", "0.75", "--resume", "--lr", "1e-3"]
    found = parse_config([*NEEDED, *words])
    assert found.groups == (0.25, 0.75)
    assert found.resume
    assert found.lr == 1e-3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps 0", "--steps must be at least 1, got 0"),
        ("--batch-size -1", "--batch-size must be at least 1, got -1"),
        ("--k 99 --d-sae 9", "--k 99 is larger than --d-sae 9"),
        ("--lr 0", "--lr must be positive"),
        ("--lr nan", "--lr must be positive"),
        ("--decay 2", "between 0 and 1"),
        ("--warmup -5", "--warmup must not be negative, got -5"),
        ("--dead-after -1", "--dead-after must not be negative"),
        ("--aux nan", "--aux must not be negative"),
        ("--images 0", "--images must be at least 1"),
        ("--arch matryoshka --groups 0.5 0.6", "sum to 1"),
        ("--arch matryoshka --groups 0.001 0.999 --d-sae 64", "give each group a latent"),
        ("--resume --overwrite", "contradict each other"),
        ("--arch gated", "invalid choice: 'gated'"),
        ("--tokens some", "invalid choice: 'some'"),
        ("--layer two", "invalid int value: 'two'"),
    ],
)
def test_what_cannot_work_is_refused(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_config([*NEEDED, *words.split()])
    assert message in capsys.readouterr().err


def test_the_learning_rate_rises_stays_and_falls() -> None:
    found = TrainConfig("b", "d", "o", steps=100, lr=1.0, warmup=9, decay=0.5)
    assert found.learning_rate(0) == pytest.approx(0.1)
    assert found.learning_rate(9) == found.learning_rate(50) == 1.0
    assert found.learning_rate(75) == pytest.approx(0.5)
    assert found.learning_rate(99) == pytest.approx(0.02)
    assert TrainConfig("b", "d", "o", d_sae=65_536, steps=110_000).peak_lr == pytest.approx(1e-4)
    assert TrainConfig("b", "d", "o", d_sae=65_536, steps=2_500).peak_lr == pytest.approx(2e-4)
    assert TrainConfig("b", "d", "o", d_sae=65_536, steps=10).peak_lr == pytest.approx(4e-4)
