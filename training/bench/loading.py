"""How long loading takes, and how much memory: `python training/bench/loading.py`.

Prints: `from_pretrained("bundled")` to the first encode; an SAE of 49,152 latents (302 MB) loaded
memory-mapped, its hash included, with the peak of memory above what torch itself had taken; the same
SAE from PatchSAE's pickle; and how long a damaged file of that size takes to be refused. Every figure
but the last is the best of three fresh processes; files are in the page cache (they were just
written), so disks do not enter. Each line ends with its limit and "ok" or "OVER".
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch

from sae.artifact import WEIGHTS
from sae.config import BackboneRef, SAEConfig
from sae.errors import ArtifactError
from sae.model import SparseAutoencoder
from sae.storage import sha256
from sae.terminal import command
from training.bench.gauges import seconds, verdict

ROOT = Path(__file__).resolve().parents[2]
D_IN, D_SAE = 768, 49_152
LIMIT_BUNDLED_S, LIMIT_LARGE_S, LIMIT_PEAK, LIMIT_DAMAGED_S = 2.0, 1.5, 1.3, 1.0
PROBE = """
import json, re, time
begin = time.perf_counter()
import torch
from sae.model import SparseAutoencoder
start = time.perf_counter()
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
sae = {load}
loaded = time.perf_counter() - start
above = peak() - before
with torch.no_grad():
    sae.encode(torch.zeros(1, sae.cfg.d_in))
done = time.perf_counter()
print(json.dumps(dict(imports=start - begin, load=loaded, encode=done - start, peak=above)))
"""


def probe(load: str) -> dict[str, float]:
    """Seconds and bytes of one way to load, the smallest of three processes."""
    runs = []
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", PROBE.format(load=load)],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        runs.append(json.loads(out.stdout))
    return {name: min(run[name] for run in runs) for name in runs[0]}


def large(folder: Path) -> int:
    """Write an SAE of PatchSAE's size, as an artifact and as a pickle; returns its bytes."""
    cfg = SAEConfig("relu", D_IN, D_SAE, BackboneRef("openai/clip-vit-base-patch16", 10))
    sae = SparseAutoencoder(cfg)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.normal_(std=0.02)
    sae.save_pretrained(folder / "artifact")
    state = {name: parameter.detach() for name, parameter in sae.named_parameters()}
    words = {"block_layer": -2, "model_name": "openai/clip-vit-base-patch16"}
    torch.save({"cfg": words, "state_dict": state}, folder / "sae.pt")
    return (folder / "artifact" / WEIGHTS).stat().st_size


def damaged(path: Path) -> Iterator[tuple[str, float]]:
    """Seconds until each damage of the weights in `path` is refused."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        middle = file.read(1)
        file.seek(size // 2)
        file.write(bytes([middle[0] ^ 1]))
        file.flush()
        yield "with a bit flipped", refusal(path)
        file.seek(size // 2)
        file.write(middle)
        file.flush()
        for name, length in (("cut at its end", size - 1), ("cut in the middle", size // 2)):
            file.truncate(length)
            yield name, refusal(path)


def refusal(path: Path) -> float:
    """Seconds until an artifact or pickle is refused; RuntimeError if it loads."""
    start = time.perf_counter()
    try:
        if path.suffix == ".pt":
            SparseAutoencoder.from_other(path)
        else:
            SparseAutoencoder.from_pretrained(path.parent)
    except ArtifactError:
        return time.perf_counter() - start
    raise RuntimeError(f"{path} is damaged and loads")


def limited(value: float, limit: float) -> str:
    """The limit of a figure, and whether it holds."""
    return f"(limit {limit:g} {verdict(value, limit)})"


@command
def main(_argv: list[str]) -> None:
    """Print one line a measurement."""
    probed = probe('SparseAutoencoder.from_pretrained("bundled")')
    print(
        f"bundled: {probed['load']:.3f} s to load, {probed['encode']:.3f} s to the first encode "
        f"{limited(probed['encode'], LIMIT_BUNDLED_S)}, after {probed['imports']:.2f} s of imports"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = large(folder)
        hashing = seconds(lambda: sha256(folder / "artifact" / WEIGHTS))
        for title, load in (
            ("artifact", f"SparseAutoencoder.from_pretrained({str(folder / 'artifact')!r})"),
            ("pickle", f"SparseAutoencoder.from_other({str(folder / 'sae.pt')!r})"),
        ):
            probed = probe(load)
            print(
                f"{D_SAE:,} latents, {size / 1e6:.0f} MB, {title}: {probed['load']:.2f} s "
                f"{limited(probed['load'], LIMIT_LARGE_S)}, peak {probed['peak'] / size:.2f} x its "
                f"size {limited(probed['peak'] / size, LIMIT_PEAK)}"
            )
        print(f"of which sha256: {hashing:.2f} s")
        for path in (folder / "artifact" / WEIGHTS, folder / "sae.pt"):
            for name, took in damaged(path):
                print(
                    f"{path.name} {name}: refused after {took:.2f} s {limited(took, LIMIT_DAMAGED_S)}"
                )


if __name__ == "__main__":
    sys.exit(main())
