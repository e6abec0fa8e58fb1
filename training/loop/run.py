"""One training run: a stream of activations and the SAEs that learn from it, in step.

Knows what has to be saved to go on exactly, and how the processes agree to stop. Knows nothing of
the command line, progress bars, evaluation or the Hub.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.config import BackboneRef
from training.data.feeds import ImageFeed, workers_for
from training.data.sources import ImageSource
from training.data.store import StoredRows, StoreFeed, check_fits
from training.data.stream import Feed, Stopped, Stream
from training.launch import StopRequest
from training.loop import checkpoints
from training.loop.config import TrainConfig
from training.loop.distributed import ranks_of
from training.loop.objectives import StepOutput
from training.loop.trainer import Progress, Trainer


class Run:
    """A run at some step. Make one, `start` or `restore` it, then `step` through `batches`.

    `members`: configs of the SAEs that learn from the stream of `config`, each with its own `out`;
    by default one SAE, that of `config`.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        backbone: Backbone,
        source: ImageSource,
        stop: StopRequest,
        members: Sequence[TrainConfig] | None = None,
    ) -> None:
        self.config, self.accelerator, self.backbone = config, accelerator, backbone
        self.stop, self.ranks = stop, ranks_of(accelerator)
        self.n_processes, self.device = accelerator.num_processes, accelerator.device
        self.layer = backbone.resolve_layer(config.layer)
        self.view = TokenView(backbone, config.tokens)
        where: list[Any] = [self.view.policy, backbone.revision, backbone.family]
        self.where = BackboneRef(backbone.id, self.layer, *where)
        self.stream = open_stream(
            config,
            backbone,
            self.layer,
            source,
            rank=accelerator.process_index,
            world=self.n_processes,
            should_stop=lambda: stop.requested,
        )
        self.trainers = [Trainer(c, backbone.d_model, accelerator) for c in members or [config]]
        self.n_steps, self.seconds, self.stopped = 0, 0.0, False
        self.given_batch_size = config.batch_size
        """--batch-size of the command line; another number of processes may each take another batch."""
        self._since = time.monotonic()

    def start(self) -> bool:
        """Set every SAE up from the first buffer; False if the run was stopped before that."""
        buffer = self._agreed(self.stream.first_buffer)
        if buffer is None:
            return False
        for trainer in self.trainers:
            trainer.start(buffer, self.view.n_trained)
            trainer.prepare()
        return True

    def restore(self) -> list[str]:
        """Go on from the newest checkpoint that all SAEs have; returns what was amiss."""
        saved, messages = checkpoints.newest(
            [(trainer.out, trainer.config) for trainer in self.trainers], self.n_processes
        )
        state = saved[0].state
        messages += self._take_place(state, saved[0].folder)
        for trainer, checkpoint in zip(self.trainers, saved, strict=True):
            if (width := len(checkpoint.tensors["weights.b_dec"])) != self.backbone.d_model:
                raise ValueError(
                    f"--resume: {checkpoint.folder} is of width {width}, but {self.backbone.id} "
                    f"has activations of width {self.backbone.d_model}; give the same --backbone."
                )
            trainer.load(checkpoint.tensors, checkpoint.state["scale"])
            trainer.prepare()
        self.n_steps, self.seconds = state["step"], state["seconds"]
        if self.accelerator.is_main_process:
            self._write_artifacts()  # a run that was killed may have left one half-written
        return messages

    def _take_place(self, state: dict[str, Any], folder: Path) -> list[str]:
        """Go on where the stream of another run stood, whatever the number of its processes."""
        streams, rank = state["streams"], self.accelerator.process_index
        if state["n_processes"] == self.n_processes:
            self.stream.position = streams[rank]
            return []
        if any(stream["source"] is not None for stream in streams):
            raise ValueError(
                f"--resume: {folder} was made by {state['n_processes']} processes, this run has "
                f"{self.n_processes}; a streamed dataset goes on with as many alone: launch "
                f"{state['n_processes']}, or train without --streaming into another --out."
            )
        bad = sum(stream["n_unreadable"] for stream in streams)
        own = bad // self.n_processes + (rank < bad % self.n_processes)
        self.stream.position = {**streams[0], "n_unreadable": own}
        return [
            f"made by {state['n_processes']} processes; each of this run's {self.n_processes} takes "
            f"{self.config.batch_size} tokens a step, so every step sees what it would have seen"
        ]

    def save(self) -> list[Path]:
        """Write a checkpoint and the artifact of every SAE; returns the checkpoints' folders.

        All processes must call it, the main one writes. NaN or infinity among what would be saved
        is a ValueError, a failure to write checkpoints.NotSaved; both leave the old ones as they are.
        """
        streams = self.ranks.every(self.stream.position)
        for trainer in self.trainers:
            if not trainer.is_finite():
                raise self._not_finite("a weight", "NaN or infinite")
        if not self.accelerator.is_main_process:
            return []
        common = {"seconds": self.elapsed, "n_processes": self.n_processes, "streams": streams}
        common["given_batch_size"] = self.given_batch_size
        folders = [
            checkpoints.save(
                trainer.out,
                self.n_steps,
                trainer.config,
                {**common, "scale": trainer.scale},
                trainer.tensors(),
            )
            for trainer in self.trainers
        ]
        for trainer in self.trainers:
            checkpoints.prune(trainer.out, self.config.keep_checkpoints)
        self._write_artifacts()
        return folders

    def batches(self) -> Iterator[Float[Tensor, "tokens d_in"]]:
        """Raw activations `(tokens, d)` for this process, until all processes agree to stop."""
        stream = iter(self.stream)
        while True:
            before = self.stream.position
            x = self._agreed(lambda: next(stream))
            if x is None:
                self.stream.position = before
                return
            yield x

    def step(self, x: Float[Tensor, "tokens d_in"]) -> list[StepOutput]:
        """One optimiser step of every SAE on `x`, the batch last dealt."""
        outs = [trainer.step(x, self.n_steps, self.stream.cls) for trainer in self.trainers]
        self.n_steps += 1
        return outs

    def progress(
        self, x: Float[Tensor, "tokens d_in"], outs: Sequence[StepOutput]
    ) -> list[Progress]:
        """Figures of the step that was made on `x`; a loss or weight that is not finite is a
        ValueError."""
        mean = self.ranks.mean(x.mean(0))
        spread = self.ranks.total((x - mean).square().sum())
        figures = [
            trainer.progress(out, len(x), spread)
            for trainer, out in zip(self.trainers, outs, strict=True)
        ]
        for trainer, of_one in zip(self.trainers, figures, strict=True):
            if not abs(of_one.loss) < float("inf"):
                raise self._not_finite("the loss", str(of_one.loss))
            if not all(bool(p.sum().isfinite()) for p in trainer.weights.parameters()):
                raise self._not_finite("a weight", "NaN or infinite")
        return figures

    def n_unreadable(self) -> int:
        """Images that could not be read so far, of all processes, which must all ask."""
        return sum(self.ranks.every(self.stream.n_unreadable))

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, those before a resumption included."""
        return self.seconds + time.monotonic() - self._since

    def _agreed(self, read: Callable[[], Tensor]) -> Tensor | None:
        """What `read` gives; None on all processes if one of them was asked to stop.

        A process that cannot read brings the others to an end too, so that none waits for it.
        """
        value: Tensor | None = None
        stop, failure = False, None
        try:
            value = read()
        except Stopped:
            stop = True
        except (ValueError, OSError) as error:
            failure = error
        stop = stop or self.stop.requested
        if self.ranks.n > 1:
            flags = torch.tensor([stop, failure is not None], dtype=torch.int32, device=self.device)
            stop, fails = (bool(n) for n in self.ranks.total(flags).tolist())
            if fails and failure is None:
                failure = ValueError("another process of this run failed; its message says why.")
        if failure is not None:
            raise failure
        if stop:
            self.stopped = True
            return None
        return value

    def _write_artifacts(self) -> None:
        for trainer in self.trainers:
            with checkpoints.writing(trainer.out):
                trainer.to_sae(self.where).save_pretrained(trainer.out)

    def _not_finite(self, what: str, value: str) -> ValueError:
        return ValueError(
            f"{what} became {value} by step {self.n_steps}; what was saved before is as it was. "
            "Lower --lr and start again in another --out."
        )


def open_stream(
    config: TrainConfig,
    backbone: Backbone,
    layer: int,
    source: object,
    *,
    rank: int = 0,
    world: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
) -> Stream:
    """The Stream of a run: `config.batch_size` rows a step for each of `world` processes.

    `source` is what `training.data.sources.open_source` gave. Raises ValueError for a layer or tokens
    that the backbone does not have, and for a store that was made otherwise.
    """
    return Stream(
        _feed(config, backbone, layer, source, rank, world),
        batch=config.batch_size * world,
        buffer=config.buffer,
        seed=config.seed,
        rank=rank,
        world=world,
        n_shards=config.shards,
        n_steps=config.steps,
        max_unreadable=config.max_unreadable,
        should_stop=should_stop,
    )


def _feed(
    config: TrainConfig, backbone: Backbone, layer: int, source: Any, rank: int, world: int
) -> Feed:
    source = source.first(config.images)
    if isinstance(source, StoredRows):
        check_fits(source.manifest.plan, source.folder, backbone, layer, config.tokens)
        return StoreFeed(source, seed=config.seed, device=backbone.device)
    return ImageFeed(
        backbone,
        layer,
        source,
        tokens=config.tokens,
        image_batch=config.image_batch,
        seed=config.seed,
        workers=workers_for(config.workers, backbone.device),
        rank=rank,
        world=world,
    )
