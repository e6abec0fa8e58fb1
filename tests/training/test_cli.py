"""The contract's command, word for word, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sae.model import SparseAutoencoder
from tests.tiny_models import tiny
from training.train import main

ROOT = Path(__file__).resolve().parents[2]
ACCELERATE = Path(sys.executable).with_name("accelerate")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("clip").save(tmp_path_factory.mktemp("clip"))


def launch(*words: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    many = ["--multi_gpu", "--num_processes", str(processes)] if processes > 1 else []
    return subprocess.run(
        [ACCELERATE, "launch", *many, "training/train.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


def short(clip: Path, out: Path) -> list[object]:
    words = f"--backbone {clip} --data world --layer -2 --arch topk --d-sae 64 --k 4 --steps 6"
    small = "--batch-size 64 --buffer 3 --eval-images 4 --threads 1"
    return [*words.split(), "--out", out, *small.split()]


def test_overwrite_leaves_nothing_of_the_earlier_run(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stale = ["checkpoints/step_00000009/state.json", "concepts/index.json", "progress.jsonl"]
    for name in stale:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    words = [str(word) for word in short(clip, out)]
    with pytest.raises(SystemExit, match="--overwrite"):
        main(words)
    main([*words, "--overwrite", "--checkpoint-every", "3"])
    steps = sorted(folder.name for folder in (out / "checkpoints").iterdir())
    assert steps == ["step_00000003", "step_00000006"]
    assert not (out / "concepts").exists()


def test_accelerate_launch(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = launch(*short(clip, out))
    assert done.returncode == 0, done.stderr
    assert "6/6" in done.stderr
    assert "the artifact is in" in done.stdout
    sae = SparseAutoencoder.from_pretrained(out)
    assert sae.encode(torch.zeros(2, 32)).shape == (2, 64)
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"fvu", "l0", "dead_fraction"} <= metrics.keys()
    command = metrics["evidence"]["fvu"]["command"]
    assert command.startswith(f"accelerate launch training/train.py --backbone {clip} --data world")
    with pytest.raises(SystemExit, match=r"error: .*already holds config.json, .* Give --resume"):
        main([str(word) for word in short(clip, out)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--layer", "3"], "error: layer 3 does not exist: .* has 3 layers"),
        (["--data", "nowhere"], "error: --data nowhere: no such folder"),
        (["--d-sae", "3"], "2"),
        (["--sweep", "layer=1,2"], "error: --sweep: 'layer' cannot differ"),
        (["--sweep", "k=4,99"], "error: --k 99 is larger than --d-sae 64"),
        (["--tokens", "cls", "--backbone", "nowhere"], "error: .*nowhere"),
    ],
)
def test_mistakes_end_in_one_line(
    change: list[str], message: str, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=message):
        main([str(word) for word in [*short(clip, tmp_path / "run"), *change]])


def test_two_processes_on_the_cpu(clip: Path, tmp_path: Path) -> None:
    done = launch(*short(clip, tmp_path), "--arch", "batch_topk", processes=2)
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    assert "tokens/s, fvu " in done.stderr
    assert done.stdout.count("the artifact is in") == 1
    assert SparseAutoencoder.from_pretrained(tmp_path).cfg.architecture == "batch_topk"
    training = json.loads((tmp_path / "training.json").read_text())
    assert training["tokens"] == 2 * 6 * 64
