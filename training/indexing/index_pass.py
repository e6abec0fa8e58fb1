"""One pass over a data set for an index, by one or several processes, that can be taken up again.

Knows processes, partial results and signals; what is gathered is the work of `sae.concepts`.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from sae.backbones import Backbone
from sae.concepts.build.assembly import assemble, batches_of, embedding_width
from sae.concepts.build.gathering import Gathered
from sae.concepts.build.image_pass import Embed, gather, settings_for
from sae.concepts.build.partial import load_parts, parts_in, remove_parts, save_part
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from training.data.labelled import Labelled, World
from training.launch import stop_on_signal

PARTIAL = ".partial"


class Pass:
    """See the module; the folder of partial results is OUT/.partial."""

    def __init__(
        self,
        data: World | Labelled,
        backbone: Backbone,
        sae: SparseAutoencoder,
        digest: str,
        out: Path,
        options: argparse.Namespace,
    ) -> None:
        self.data, self.backbone, self.sae, self.digest = data, backbone, sae, digest
        self.options, self.partial = options, out / PARTIAL
        self.settings = settings_for(data, sae, tau=options.tau)
        self.about = {
            "sae_sha256": digest,
            "backbone": backbone.id,
            "data": data.name,
            "classes": list(data.classes),
            "batch": options.batch,
            "embedder": options.embedder,
        }

    def gather(self, accelerator: Accelerator, embed: Embed | None) -> Gathered | None:
        """What all processes gathered; None in those that are not the main one, and if stopped."""
        width = None if embed is None else embedding_width(embed)
        gathered, seen = self._begin(accelerator, width)
        batches = batches_of(len(self.data), self.options.batch)
        left = [batch for batch in batches if not seen[batch].all()]
        mine = left[accelerator.process_index :: accelerator.num_processes]
        name = f"process-{accelerator.process_index}-of-{accelerator.num_processes}"
        with stop_on_signal() as stop, _bar(mine, accelerator) as bar:
            since = 0

            def done(n: int) -> None:
                nonlocal since
                since += n
                bar.update(n)
                if since >= self.options.save_every:
                    save_part(self.partial, name, gathered, self.about)
                    since = 0

            walk = _until(lambda: stop.requested, mine)
            gather(self.data, self.backbone, self.sae, gathered, walk, embed=embed, done=done)
            stopped = stop.requested
        if mine:  # also when the pass is over: what follows can be interrupted too
            save_part(self.partial, name, gathered, self.about)
        stops = torch.tensor([int(stopped)], device=accelerator.device)
        if int(accelerator.gather(stops).sum()):
            if accelerator.is_main_process:
                print(f"Stopped; go on with --resume. So far: {self.partial}")  # noqa: T201
            return None
        if not accelerator.is_main_process:
            return None
        if accelerator.num_processes > 1:
            return load_parts(self.partial, self.settings, self.about)
        return gathered

    def _begin(self, accelerator: Accelerator, width: int | None) -> tuple[Gathered, np.ndarray]:
        """What this process goes on from, and which images are done already (by any process)."""
        fresh = Gathered(self.settings, d_embedding=width, d_in=self.sae.cfg.d_in)
        seen = np.zeros(len(self.data), bool)
        if accelerator.is_main_process and not self.options.resume:
            remove_parts(self.partial)
        accelerator.wait_for_everyone()
        if not parts_in(self.partial):
            return fresh, seen
        before = load_parts(self.partial, self.settings, self.about)
        seen = before.counts["seen"].copy()
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            merged = save_part(self.partial, "merged", before, self.about)
            for path in parts_in(self.partial):
                if path != merged:
                    path.unlink()
        accelerator.wait_for_everyone()  # nobody writes a part while old ones are deleted
        # of several processes none goes on from `merged`: it is merged in at the end
        return (before if accelerator.num_processes == 1 else fresh), seen

    def assemble(self, gathered: Gathered, embedder: str | None) -> ConceptIndex:
        """The index, without names."""
        return assemble(
            gathered,
            self.data,
            self.backbone,
            self.sae,
            sae_sha256=self.digest,
            embedder=embedder,
            thumbnails=not self.options.no_thumbnails,
            n_lit=self.options.name_exemplars,
            progress=lambda numbers: tqdm(numbers, desc="exemplar images"),
        )


def _bar(mine: list[np.ndarray], accelerator: Accelerator) -> tqdm:
    n = sum(len(batch) for batch in mine)
    return tqdm(total=n, desc="images", unit="", disable=not accelerator.is_main_process)


def _until(stopped: Callable[[], bool], batches: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """Batches, until somebody asks to stop."""
    for batch in batches:
        if stopped():
            return
        yield batch
