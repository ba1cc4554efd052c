"""On a terminal: a row per epoch, and bars of epochs and steps with losses, images per second and the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from art_lbgat.commands.reporting import Lines, Reporter, accuracies, duration, loss_terms, summary

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
        self._header = ""
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
            self._print_row(values, epoch)
        self._progress.detail = "" if ended else summary(values)
        self._progress.update(self._steps, completed=0 if ended else in_epoch, text=speed)
        self._progress.update(self._epochs, completed=epoch if ended else epoch - 1, text=left)

    def _print_row(self, values: Mapping[str, Any], epoch: int) -> None:
        """The epoch as a row under headings, which are printed again where they change."""
        console = self._progress.console
        last = self._run["nb_epochs"]
        header, row = epoch_row(values, f"{epoch}/{last}", console.width, len(f"{last}/{last}"))
        shown = [self._title, header, row] if not self._header else [header, row]
        for line in shown if header != self._header else [row]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._header = header

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


def epoch_row(values: Mapping[str, Any], epoch: str, width: int, epoch_width: int = 0) -> tuple[str, str]:
    """Headings and numbers of an epoch, one below the other.

    :param values: The row of the history.
    :param epoch: Which epoch.
    :param width: Columns of the terminal; the terms of the loss are left out where they do not fit.
    :param epoch_width: Columns of the longest ``epoch``.
    """
    terms = loss_terms(values)
    loss = {"loss": terms.pop("loss", math.nan)}
    rates = {f"{word} %": f"{100 * value:.1f}" for word, value in accuracies(values).items()}
    rates["images/s"] = f"{values['images_per_second']:.0f}"
    heads, row = [""], ""
    for shown in ({**loss, **terms} if len(terms) > 1 else loss, loss):
        cells = {"epoch": epoch.rjust(epoch_width), **{name: _loss(value) for name, value in shown.items()}, **rates}
        names = [_two_lines(name) for name in cells]
        sizes = [max(map(len, (*name, cell))) for name, cell in zip(names, cells.values(), strict=True)]
        heads = [_spaced(each, sizes) for each in zip(*names, strict=True)]
        row = _spaced(cells.values(), sizes)
        if len(row) <= width:
            break
    return "\n".join(head for head in heads if head.strip()), row


def _spaced(cells: Iterable[str], sizes: Iterable[int]) -> str:
    return "  ".join(cell.rjust(size) for cell, size in zip(cells, sizes, strict=True))


def _loss(value: float) -> str:
    """Of one width, so that the headings stay as they are from epoch to epoch."""
    return (f"{value:.4f}" if abs(value) < 1000 else f"{value:.3e}").rjust(9)


def _two_lines(name: str) -> tuple[str, str]:
    """``validation natural %`` as two short lines, other names in the second."""
    first, space, rest = name.partition(" ")
    return (first, rest) if space and rest != "%" else ("", name)
