"""What commands say, for people, as JSON lines or not at all, and where they may write. Only this file prints."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    import pandas

_PIPE_WIDTH = 220  # in a pipe there is no width to fit into
_ACCURACIES = {
    "train_natural_accuracy": "train natural",
    "train_robust_accuracy": "train robust",
    "guide_accuracy": "guide",
    "validation_natural_accuracy": "validation natural",
    "validation_robust_accuracy": "validation robust",
}


def say(text: object, *, err: bool = False) -> None:
    """A line on stdout or stderr."""
    typer.echo(text, err=err)


class Reporter:
    """Says what happens, in one of three ways: ``"lines"`` for people, ``"json"`` events on stdout, or ``"quiet"``."""

    def __init__(self, kind: Literal["lines", "json", "quiet"]) -> None:
        self.kind = kind
        self.bar = kind == "lines" and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """A line for people."""
        if self.kind == "lines":
            say(text)

    def progress(self, text: str) -> None:
        """A line for people about work under way: on stderr, above the bar where there is one."""
        if self.kind == "lines":
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)

    def event(self, name: str, **values: Any) -> None:
        """Something happened, for programs: one JSON object; what is not finite is null."""
        if self.kind == "json":
            say(json.dumps({"event": name, **_plain(values)}, allow_nan=False))
            sys.stdout.flush()

    def table(self, title: str, frame: pandas.DataFrame) -> None:
        """The table of an evaluation; for programs an event ``"result"`` for each row."""
        if self.kind == "lines":
            print_table(title, *result_cells(frame), left=("model", "attack", "flags"))
        for row in frame.to_dict("records"):
            self.event("result", **{str(name): value for name, value in row.items()})


def make_reporter(*, quiet: bool, json_lines: bool) -> Reporter:
    """The reporter that the options ask for; processes beside the main one say nothing."""
    from art_lbgat.processes import is_main_process

    if quiet and json_lines:
        raise ValueError("quiet: expected either --quiet or --json-lines, got both.")
    if quiet or not is_main_process():
        return Reporter("quiet")
    return Reporter("json" if json_lines else "lines")


class ProgressTracker:
    """A tracker that reports each epoch of one training, with the time left."""

    def __init__(self, reporter: Reporter, title: str) -> None:
        self._reporter, self._title = reporter, title
        self._nb_epochs, self._first, self._since = 0, 1, 0.0

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        names = ("trainer", "seed", "nb_epochs", "steps_per_epoch", "epoch")
        self._reporter.event("start", run=self._title, **{name: run[name] for name in names})
        self._nb_epochs, self._first, self._since = run["nb_epochs"], run["epoch"], time.monotonic()
        if run["epoch"] > run["nb_epochs"]:
            self._reporter.progress(f"{self._title}: all {run['nb_epochs']} epochs are done")
        elif run["epoch"] > 1 or run["history"]:
            self._reporter.progress(f"{self._title}: resumes in epoch {run['epoch']} of {run['nb_epochs']}")

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self._reporter.event("epoch", run=self._title, step=step, **{k: v for k, v in values.items() if k != "fit"})
        seconds = (time.monotonic() - self._since) / (epoch - self._first + 1)
        left = f", {duration(seconds * (self._nb_epochs - epoch))} left" if epoch < self._nb_epochs else ""
        speed = f"{values['images_per_second']:.0f} images/s"
        self._reporter.progress(f"{self._title}: epoch {epoch}/{self._nb_epochs}: {summary(values)}, {speed}{left}")

    def finish(self, status: str) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self._reporter.event(status, run=self._title)


def summary(values: Mapping[str, Any]) -> str:
    """Loss, its terms (what stands before ``"loss"``) and accuracies of a row of the history as one text."""
    names = list(values)
    before = names[: names.index("loss")] if "loss" in names else []
    terms = [f"{k} {float(values[k]):.4g}" for k in before if k not in ("fit", "epoch", "step_in_epoch")]
    shown = [f"loss {float(values.get('loss', math.nan)):.4g}" + (f" ({', '.join(terms)})" if len(terms) > 1 else "")]
    found = {word: values.get(name) for name, word in _ACCURACIES.items()}
    return ", ".join(
        shown + [f"{word} {v:.1%}".replace("%", " %") for word, v in found.items() if v is not None and v == v]
    )


def duration(seconds: float) -> str:
    """Such as ``"2 h 05 min"``, ``"3 min 20 s"``, ``"0.4 s"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def print_table(
    title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:  # fmt: skip
    """A table on stdout: numbers to the right; columns of ``left`` are text, folded unless they are in ``whole``."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for header in headers:
        justify: Literal["left", "right"] = "left" if header in left else "right"
        table.add_column(header, justify=justify, overflow="fold", no_wrap=header not in left or header in whole)
    for row in rows:
        table.add_row(*row)
    width = None if Console().is_terminal else _PIPE_WIDTH
    Console(width=width, highlight=False, markup=False).print(table)


def print_frame(title: str, frame: pandas.DataFrame) -> None:
    """A data frame as it is; missing values are empty."""
    rows = [
        ["" if str(v) in ("nan", "<NA>") else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
        for row in frame.itertuples(index=False)
    ]
    print_table(title, list(frame.columns), rows, left=frame.select_dtypes(exclude="number").columns)


def result_cells(table: pandas.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of ``evaluate``: accuracies in percent with their 95 % intervals."""
    models = ["model"] if "model" in table else []
    rows = [
        [*(str(row[name]) for name in models), str(row["attack"]), f"{row['eps']:.4g}", str(row["n"]),
         f"{100 * row['accuracy']:.2f}", f"{100 * row['low']:.2f} to {100 * row['high']:.2f}", str(row["flags"])]
        for row in table.fillna({"flags": ""}).to_dict("records")
    ]  # fmt: skip
    return [*models, "attack", "eps", "n", "accuracy %", "95 % interval", "flags"], rows


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str]) -> str:
    """A table as Markdown, numbers to the right."""
    rule = ["---" if header in left else "---:" for header in headers]
    return "".join(f"| {' | '.join(line)} |\n" for line in (headers, rule, *rows))


def typed() -> str:
    """The command as it was typed."""
    return readable(shlex.join(["art-lbgat", *sys.argv[1:]]))


def readable(text: object) -> str:
    """A text that can be written, whatever the bytes of the names in it."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def new_file(path: Path | None, option: str) -> None:
    """Refuse a file that is there, or whose directory is not, before anything long is done."""
    if path is None:
        return
    if path.exists():
        kind = "is a directory" if path.is_dir() else "exists already"
        raise ValueError(f"{option}: {path} {kind}; expected a new file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: there is no directory {path.parent} to write {path.name} to.")


def refuse_other_things(directory: Path, besides: str = "") -> None:
    """Refuse a directory that is not empty; ``besides`` ends the sentence of what is expected."""
    there = sorted(each.name for each in directory.iterdir()) if directory.is_dir() else []
    if there:
        names = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
        raise ValueError(
            f"output: {directory} holds other things ({names}); expected a new or an empty directory{besides}."
        )


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if str(value) == "<NA>" else str(value)
