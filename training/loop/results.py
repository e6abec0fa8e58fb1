"""What a run leaves behind: artifact, training.json, metrics.json, curves, card, uploads.

Knows when each of them is written. Knows nothing of steps. The main process writes them.
"""

from typing import Any

from sae.hub import write_card
from sae.storage import write_json
from training.evaluation.measure import measure, metrics_json
from training.loop import curves, report, uploads
from training.loop.checkpoints import writing
from training.loop.monitor import LOG, read_log
from training.loop.run import Run
from training.loop.trainer import Trainee


class Results:
    """Writes what a run has to show, at checkpoints and at the end."""

    def __init__(self, run: Run, source: Any, held_out: Any, command: str) -> None:
        self._run, self._source, self._held_out = run, source, held_out
        self._command, self._n_unreadable = command, 0
        self._uploads = uploads.Uploads(run.accelerator.print)

    def checkpoint(self) -> None:
        """Save every SAE's state and artifact; all processes must call it.

        Raises what Run.save raises.
        """
        self._n_unreadable = self._run.n_unreadable()  # all ask, before one may fail to write
        self._run.save()
        if not self._run.accelerator.is_main_process:
            return
        for sae in self._run.saes:
            with writing(sae.out):
                self._training_json(sae)
                write_card(sae.out, sae.config.push_to)
            if self._run.config.push_every:
                self._uploads.start(sae.out, sae.config.push_to, sae.config.private)

    def finish(self) -> None:
        """Write the artifacts, measure them on held-out images, and push them if asked."""
        run = self._run
        self._n_unreadable = run.n_unreadable()
        if not run.accelerator.is_main_process:
            return
        if self._n_unreadable:
            run.accelerator.print(f"{self._n_unreadable} unreadable images were replaced by others")
        seconds, artifacts = run.elapsed, []
        for sae in run.saes:
            artifact = sae.to_sae(run.where)
            with writing(sae.out):
                artifact.save_pretrained(sae.out)
                self._training_json(sae, seconds)
            artifacts.append(artifact.to(run.device))
        self._draw()
        run.accelerator.print(f"measuring on {self._held_out.name} …")
        self._measure(artifacts)
        self._uploads.close()
        for sae in run.saes:
            if sae.config.push_to:
                run.accelerator.print(uploads.push(sae.out, sae.config.push_to, sae.config.private))

    def close(self) -> None:
        """Wait for uploads under way."""
        self._uploads.close()

    def _measure(self, artifacts: list[Any]) -> None:
        run, held_out = self._run, self._held_out
        all_measured = measure(
            artifacts, run.backbone, held_out, image_batch=run.config.image_batch
        )
        for sae, measured in zip(run.saes, all_measured, strict=True):
            found = measured.found
            metrics = metrics_json(
                measured, data=held_out.name, tokens=run.where.tokens, command=self._command
            )
            with writing(sae.out):
                write_json(sae.out / "metrics.json", metrics)
                write_card(sae.out, sae.config.push_to)
            run.accelerator.print(
                f"held-out: fvu {found.fvu:.4f}, l0 {found.l0:.2f}, dead "
                f"{found.dead_fraction:.2%} ({found.n_tokens:,} tokens); the artifact is in "
                f"{sae.out}"
            )

    def _draw(self) -> None:
        logs = {sae.out.name: read_log(sae.out / LOG) for sae in self._run.saes}
        for sae in self._run.saes:
            with writing(sae.out):
                curves.draw({sae.out.name: logs[sae.out.name]}, sae.out / curves.FILE)
        if len(logs) > 1:
            together = self._run.saes[0].out.parent / curves.FILE
            with writing(together):
                curves.draw(logs, together)

    def _training_json(self, sae: Trainee, seconds: float | None = None) -> None:
        run = self._run
        content = report.training_json(
            sae.config,
            command=self._command,
            dataset=self._source.name,
            origin=self._origin(),
            n_unreadable=self._n_unreadable,
            n_processes=run.n_processes,
            n_images=run.stream.n_images,
            seconds=run.elapsed if seconds is None else seconds,
            n_steps=run.n_steps,
            scale=sae.scale,
        )
        write_json(sae.out / "training.json", content)

    def _origin(self) -> dict[str, Any]:
        """The images behind the run, and how many of them it holds out."""
        of_store = getattr(self._source, "origin", None)
        held_out = getattr(self._held_out, "numbers", ())
        return of_store or {"data": self._run.config.data, "held_out": len(held_out)}
