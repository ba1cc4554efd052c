"""What a command says while it works: for people on a terminal or in a log, as JSON lines for programs, or nothing."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas

_NO_TERMS = ("fit", "epoch", "step_in_epoch")
_ACCURACIES = {
    "train_natural_accuracy": "train natural",
    "train_robust_accuracy": "train robust",
    "guide_accuracy": "guide",
    "validation_natural_accuracy": "validation natural",
    "validation_robust_accuracy": "validation robust",
}


class Reporter:
    """Says nothing; the base of those that do."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def trackers(self, title: str, batch_size: int) -> list[Any]:
        """What ``trackers=`` takes, for one training.

        :param title: What it is called.
        :param batch_size: Images of a step.
        """
        return []

    def say(self, text: str) -> None:
        """A line for people.

        :param text: The line.
        """

    def event(self, name: str, **values: Any) -> None:
        """Something happened, for programs.

        :param name: What happened.
        :param values: What belongs to it, as JSON can hold it.
        """

    def table(self, title: str, frame: pandas.DataFrame) -> None:
        """A table of results.

        :param title: Its title.
        :param frame: The table.
        """


class JSONLines(Reporter):
    """One JSON object a line on stdout: ``"event"`` and its values; what is not finite is null."""

    def trackers(self, title: str, batch_size: int) -> list[Any]:
        """See :class:`Reporter`: an event for each epoch."""
        return [_Events(self, title)]

    def event(self, name: str, **values: Any) -> None:
        """See :class:`Reporter`."""
        typer.echo(json.dumps({"event": name, **_plain(values)}, allow_nan=False))
        sys.stdout.flush()

    def table(self, title: str, frame: pandas.DataFrame) -> None:
        """See :class:`Reporter`: an event ``"result"`` for each row."""
        for row in frame.to_dict("records"):
            self.event("result", **{str(name): value for name, value in row.items()})


class Lines(Reporter):
    """Plain text: results on stdout, a line for each epoch on stderr."""

    def trackers(self, title: str, batch_size: int) -> list[Any]:
        """See :class:`Reporter`."""
        return [_EpochLines(title, lambda text: typer.echo(text, err=True))]

    def say(self, text: str) -> None:
        """See :class:`Reporter`."""
        typer.echo(text)

    def table(self, title: str, frame: pandas.DataFrame) -> None:
        """See :class:`Reporter`."""
        print_results(title, frame)


class _Events:
    def __init__(self, reporter: JSONLines, title: str) -> None:
        self._reporter, self._title = reporter, title

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        names = ("trainer", "seed", "nb_epochs", "steps_per_epoch", "epoch")
        self._reporter.event("start", run=self._title, **{name: run[name] for name in names})

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self._reporter.event("epoch", run=self._title, step=step, **{k: v for k, v in values.items() if k != "fit"})

    def finish(self, status: str) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self._reporter.event(status, run=self._title)


class _EpochLines:
    """A tracker that gives a line for each epoch, with the time left."""

    def __init__(self, title: str, write: Any) -> None:
        self._title, self._write = title, write
        self._nb_epochs, self._first, self._since = 0, 1, 0.0

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self._nb_epochs, self._first, self._since = run["nb_epochs"], run["epoch"], time.monotonic()
        if run["epoch"] > run["nb_epochs"]:
            self._write(f"{self._title}: all {run['nb_epochs']} epochs are done")
        elif run["epoch"] > 1 or run["history"]:
            self._write(f"{self._title}: goes on in epoch {run['epoch']} of {run['nb_epochs']}")

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        seconds = (time.monotonic() - self._since) / (epoch - self._first + 1)
        left = f", {duration(seconds * (self._nb_epochs - epoch))} left" if epoch < self._nb_epochs else ""
        speed = f"{values['images_per_second']:.0f} images/s"
        self._write(f"{self._title}: epoch {epoch}/{self._nb_epochs}: {summary(values)}, {speed}{left}")

    def finish(self, status: str) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""


def make_reporter(*, quiet: bool, json_lines: bool) -> Reporter:
    """The reporter that the options and the terminal ask for; processes beside the main one say nothing.

    :param quiet: Say nothing but errors and warnings.
    :param json_lines: JSON objects on stdout, nothing else.
    :raises ValueError: Both.
    """
    from art_lbgat.processes import is_main_process

    if quiet and json_lines:
        raise ValueError("quiet: expected either --quiet or --json-lines, got both.")
    if quiet or not is_main_process():
        return Reporter()
    if json_lines:
        return JSONLines()
    if sys.stderr.isatty():
        from art_lbgat.commands.live import Live

        return Live()
    return Lines()


def loss_terms(values: Mapping[str, Any]) -> dict[str, float]:
    """The loss and its terms in a row of the history: what stands before ``"loss"``, and that.

    :param values: The row.
    """
    names = list(values)
    end = names.index("loss") + 1 if "loss" in names else 0
    return {name: float(values[name]) for name in names[:end] if name not in _NO_TERMS}


def accuracies(values: Mapping[str, Any]) -> dict[str, float]:
    """The accuracies in a row of the history, in [0, 1], by the words that they are shown with.

    :param values: The row.
    """
    found = {word: values.get(name) for name, word in _ACCURACIES.items()}
    return {word: float(value) for word, value in found.items() if value is not None and value == value}


def summary(values: Mapping[str, Any]) -> str:
    """Loss, terms and accuracies of a row as one text.

    :param values: The row.
    """
    terms = loss_terms(values)
    loss = terms.pop("loss", math.nan)
    parts = f" ({', '.join(f'{name} {value:.4g}' for name, value in terms.items())})" if len(terms) > 1 else ""
    shown = [f"{word} {100 * value:.1f} %" for word, value in accuracies(values).items()]
    return ", ".join([f"loss {loss:.4g}{parts}", *shown])


def duration(seconds: float) -> str:
    """Such as ``"2 h 05 min"``, ``"3 min 20 s"``, ``"0.4 s"``.

    :param seconds: A number of seconds.
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def print_results(title: str, frame: pandas.DataFrame) -> None:
    """The table of an evaluation on stdout.

    :param title: Its title.
    :param frame: The table of ``evaluate``.
    """
    from rich.table import Table

    from art_lbgat.commands.run_directory import result_cells

    table = Table(title=title, title_justify="left")
    headers = [*(["model"] if "model" in frame else []), "attack", "eps", "n", "accuracy %", "95 % interval", "flags"]
    for header in headers:
        text = header in ("model", "attack", "flags")
        table.add_column(header, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for cells in result_cells(frame):
        table.add_row(*cells)
    plain_console().print(table, highlight=False, markup=False)


def plain_console() -> Any:
    """A console on stdout; in a pipe, where there is no width to fit into, a wide one."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=220)


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if str(value) == "<NA>" else str(value)
