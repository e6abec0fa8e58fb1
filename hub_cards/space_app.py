"""PatchLens as a Gradio Space: its page, with the analysis on a ZeroGPU where there is one.

Assembled by `make space`. Everything is loaded on the CPU, which is enough for the bundled models.
On ZeroGPU hardware the `spaces` package runs a decorated function in a process of its own that has a
GPU; only the picture and the answer travel, and the models are moved there by that process.
"""

try:
    import spaces  # has to come before torch
except ImportError:
    spaces = None

import os
from pathlib import Path

SAE = "bundled"
if SAE != "bundled":
    beside = Path(__file__).resolve().parent / SAE
    os.environ.setdefault("PATCHLENS_SAE", str(beside) if beside.is_dir() else SAE)
if spaces is not None:
    os.environ["PATCHLENS_DEVICE"] = "cpu"

import torch  # noqa: E402

from sae.ui import launch_settings  # noqa: E402
from sae.ui.__main__ import build  # noqa: E402
from sae.ui.analysis import Analyst  # noqa: E402
from sae.ui.options import parse  # noqa: E402

options = parse([])
pages = build(options)

if spaces is not None:
    _as_before, _analysts = Analyst.analyse, {}

    @spaces.GPU(duration=30)
    def _on_gpu(number, image):
        analyst = _analysts[number]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        for model in (analyst.backbone._vision, analyst.sae):
            model.to(device)
        return _as_before(analyst, image)

    def _analyse(analyst, image):
        _analysts[id(analyst)] = analyst
        return _on_gpu(id(analyst), image)

    Analyst.analyse = _analyse

if __name__ == "__main__":
    pages.first.launch(
        server_name=options.host, server_port=options.port, **launch_settings(pages.beside)
    )
