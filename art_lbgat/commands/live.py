"""Bars on a terminal: epochs and steps, with losses, accuracies, images per second and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from art_lbgat.commands.reporting import Lines, Reporter, duration, summary

_SECONDS = 0.5  # between two reads of the device


class _Display(Progress):
    """Bars, and below them a line of text, which may be long."""

    detail = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The table of bars, then the line."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.detail, overflow="fold")


class Live(Lines):
    """Bars on stderr while a training runs, and warnings above them; results as :class:`Lines` on stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = _Display(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=self._console,
        )

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def trackers(self, title: str, batch_size: int) -> list[Any]:
        """See :class:`Reporter`."""
        return [_Bars(self._progress, title, batch_size)]


class _Bars:
    every_seconds = _SECONDS

    def __init__(self, progress: _Display, title: str, batch_size: int) -> None:
        self._progress, self._title, self._batch_size = progress, title, batch_size
        self._run: Mapping[str, Any] = {}
        self._since: tuple[float, int] | None = None

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self._run = run
        self._progress.start()
        total, done = run["nb_epochs"], run["epoch"] - 1
        self._epochs = self._progress.add_task(f"{self._title}: epochs", total=total, completed=done, text="")
        self._steps = self._progress.add_task("steps", total=run["steps_per_epoch"], text="")

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        in_epoch = values.get("step_in_epoch")
        ended = in_epoch is None
        speed, left = self._speed(step, epoch, self._run["steps_per_epoch"] if ended else in_epoch)
        if ended:
            line = (
                f"epoch {epoch}/{self._run['nb_epochs']}: {summary(values)}, {values['images_per_second']:.0f} images/s"
            )
            self._progress.console.print(f"{self._title}: {line}", highlight=False, markup=False, soft_wrap=True)
        self._progress.detail = "" if ended else summary(values)
        self._progress.update(self._steps, completed=0 if ended else in_epoch, text=speed)
        self._progress.update(self._epochs, completed=epoch if ended else epoch - 1, text=left)

    def _speed(self, step: int, epoch: int, in_epoch: int | None) -> tuple[str, str]:
        """Images per second and the time left, by the steps since the first that this process told of."""
        now, per_epoch = time.monotonic(), self._run["steps_per_epoch"]
        if self._since is None:
            self._since = (now, step)
        since, first = self._since
        if in_epoch is None or not per_epoch or step <= first or now <= since:
            return "", ""
        rate = (step - first) / (now - since)
        left = (self._run["nb_epochs"] - epoch + 1) * per_epoch - in_epoch
        return f"{rate * self._batch_size:.0f} images/s", f"{duration(left / rate)} left"

    def finish(self, status: str) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self._progress.detail = ""
        self._progress.stop()
        for task in (self._steps, self._epochs):
            self._progress.remove_task(task)
