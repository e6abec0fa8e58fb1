"""One pass over a data set for an index, by one or several processes, that can be taken up again.

Knows where an index belongs, processes, partial results, signals, and whose words name it; what is gathered
and how it becomes an index is the work of `sae.concepts`.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from sae.backbones import Backbone
from sae.backbones.image_encoder import image_encoder
from sae.concepts.build.assembly import assemble, batches_of, embedding_width, sizes_beside
from sae.concepts.build.gathering import Gathered
from sae.concepts.build.image_pass import Embed, gather, settings_for, untrained_beside
from sae.concepts.build.naming import name_by_labels, name_by_text, read_words
from sae.concepts.build.partial import load_parts, parts_in, remove_parts, save_part
from sae.concepts.index import ConceptIndex
from sae.errors import ArtifactError
from sae.hub import NAMES
from sae.metrics.untrained import Untrained
from sae.model import SparseAutoencoder
from training.indexing.labelled import Labelled, World, vocabulary
from training.launch import stop_on_signal

PARTIAL = ".partial"
IMAGES = "images"
"""What of a part's settings says what the pictures hold."""


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
        self.options, self.partial, self.stopped = options, out / PARTIAL, False
        self.beside: tuple[Untrained, ...] = ()
        self.settings = settings_for(data, sae, tau=options.tau)
        names, contents = data.content()
        self.about = {
            "sae_sha256": digest,
            "backbone": backbone.id,
            "data": data.name,
            "image_names": names,
            IMAGES: contents,
            "classes": list(data.classes),
            "batch": options.batch,
            "embedder": options.embedder,
        }

    def gather(self, accelerator: Accelerator, device: str | torch.device) -> Gathered | None:
        """What all processes gathered; None in those that are not the main one, and if stopped."""
        embed = _embed(self.options.embedder, device)
        width = None if embed is None else embedding_width(embed)
        if embed is not None:
            self.beside = untrained_beside(self.data, self.backbone, self.sae)
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
            what = (self.data, self.backbone, self.sae, gathered, walk)
            gather(*what, embed=embed, beside=self.beside, done=done)
            stopped = stop.requested
        if mine:  # also when the pass is over: what follows can be interrupted too
            save_part(self.partial, name, gathered, self.about)
        stops = torch.tensor([int(stopped)], device=accelerator.device)
        self.stopped = bool(accelerator.gather(stops).sum())
        if self.stopped:
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
        beside = sizes_beside(self.sae, self.beside)
        fresh = Gathered(self.settings, d_embedding=width, beside=beside)
        seen = np.zeros(len(self.data), bool)
        if accelerator.is_main_process and not self.options.resume:
            remove_parts(self.partial)
        accelerator.wait_for_everyone()
        if not parts_in(self.partial):
            if accelerator.is_main_process and self.options.resume:
                print(f"--resume: nothing in {self.partial} yet; beginning", file=sys.stderr)  # noqa: T201
            return fresh, seen

        def left_out(path: Path, error: ArtifactError) -> None:
            if accelerator.is_main_process:
                print(f"{path.name} is damaged, its images are looked at again: {error}")  # noqa: T201

        before = self._parts(left_out) or fresh
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

    def _parts(self, left_out: Callable[[Path, ArtifactError], None]) -> Gathered | None:
        """What there is to go on from; ValueError if the pictures are other ones, unless that is accepted."""
        try:
            return load_parts(self.partial, self.settings, self.about, damaged=left_out)
        except ArtifactError as error:
            rest = {name: value for name, value in self.about.items() if name != IMAGES}
            try:
                parts = load_parts(self.partial, self.settings, rest, damaged=left_out)
            except ArtifactError:
                raise error from None
            if not self.options.accept_changed_data:
                raise ValueError(
                    f"some pictures of {self.data.name} hold something else than when {self.partial} was "
                    "written. Put them back, give --accept-changed-data to go on with what is there, or "
                    "run without --resume to start again."
                ) from error
            print("going on with changed images", file=sys.stderr)  # noqa: T201
            return parts

    def assemble(self, gathered: Gathered) -> ConceptIndex:
        """The index, without names; one that lay in a folder is named after it."""
        embedder = self.options.embedder
        if embedder is not None and Path(embedder).is_dir():
            embedder = Path(embedder).name
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


def index_folder(sae: str, out: str | None) -> Path:
    """Where the index of `--sae` goes: into `--out`, or beside the SAE, if that is a folder of one's own.

    ValueError for what comes with PatchLens and a Hub id without `--out`: neither the package nor the
    Hub's cache is a place to write into.
    """
    if out is not None:
        return Path(out)
    if sae in NAMES or not Path(sae).is_dir():
        raise ValueError(
            f"--sae {sae} is no folder to write an index into; say with --out DIR where it goes."
        )
    return Path(sae)


def check_vocabulary(options: argparse.Namespace, backbone: Backbone) -> None:
    """Refuse, before the work, a --vocabulary that cannot be read or that nothing could use."""
    if not options.vocabulary:
        return
    if not options.names_only and not (backbone.has_text and options.name_exemplars):
        raise _no_use_of_words(backbone)
    if not Path(options.vocabulary).is_file():
        raise FileNotFoundError(
            f"--vocabulary {options.vocabulary}: no such file. Give a text file of one name a line."
        )
    read_words(options.vocabulary)


def _no_use_of_words(backbone: Backbone) -> ValueError:
    return ValueError(
        f"--vocabulary needs a backbone with a text tower; {backbone.id} has none, or "
        "--name-exemplars is 0. Leave it out: the data's labels are then the names."
    )


def with_names(
    index: ConceptIndex, data: World | Labelled, backbone: Backbone, options: argparse.Namespace
) -> ConceptIndex:
    """`index` named by the backbone's text tower, or else by the data's labels."""
    if index.text_tower is None:
        if options.vocabulary:
            raise _no_use_of_words(backbone)
        return name_by_labels(index)
    words = vocabulary(options.data, data.classes, options.vocabulary)
    least = {"minimum": options.naming_minimum, "sure": options.naming_confidence}
    return name_by_text(index, backbone, words, **least)


def summary(index: ConceptIndex) -> dict[str, object]:
    """The figures that are printed at the end."""
    figures: dict[str, object] = {
        "images": index.n_images,
        "unreadable": index.n_unreadable,
        "tokens": index.n_tokens,
        "latents": len(index),
        "dead": int(index.dead.sum()),
        "rare": int(index.rare.sum()),
        "dense": int(index.dense.sum()),
        "named": sum(map(bool, index.names)),
        "groups": {by: len(index.atlas.groups(by)) for by in index.atlas.stored},
    }
    scores = index.statistics.get("monosemanticity")
    if scores is not None:
        known = np.isfinite(scores)
        figures["monosemanticity_mean"] = float(scores[known].mean()) if known.any() else None
        often = known & ~index.rare
        figures["monosemanticity_mean_not_rare"] = (
            float(scores[often].mean()) if often.any() else None
        )
        if index.neuron_monosemanticity is not None:
            figures["monosemanticity_mean_of_neurons"] = index.neuron_monosemanticity["mean"]
        for name, row in index.monosemanticity_beside.items():
            figures[f"monosemanticity_mean_of_{name.replace(' ', '_')}"] = row["mean"]
    return figures


def say_what_is_lost(index: ConceptIndex, out: Path) -> None:
    """Statistics that other commands added to the index that is there are not part of a pass."""
    try:
        before = ConceptIndex.beside(out) if out.is_dir() else None
    except ArtifactError:  # damaged, or of other weights: nothing of it could be kept
        return
    if before is None:
        return
    if lost := sorted(set(before.statistics) - set(index.statistics)):
        print(  # noqa: T201
            f"The index that was in {out} also had {', '.join(lost)}; add them again with the "
            "commands that made them (patchlens steerability, patchlens index --embedder).",
            file=sys.stderr,
        )


def _embed(embedder: str | None, device: str | torch.device) -> Embed | None:
    return None if embedder is None else image_encoder(embedder, device=device)


def _bar(mine: list[np.ndarray], accelerator: Accelerator) -> tqdm:
    n = sum(len(batch) for batch in mine)
    return tqdm(total=n, desc="images", unit="", disable=not accelerator.is_main_process)


def _until(stopped: Callable[[], bool], batches: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """Batches, until somebody asks to stop."""
    for batch in batches:
        if stopped():
            return
        yield batch
