"""What a topic found: rows for a table, for JSON, and the bounds they are held to."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from qa.benchmarks.timing import Stat

Value = Stat | float | int | str | None


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    :param repeats: Rounds of the main comparisons; the others take at most three.
    :param toy: The smallest run that goes through every line, for the tests.
    :param limit: Seconds after which one comparison begins no further round.
    :param root: Where CIFAR-10 lies, for what is measured on images; None leaves that out.
    """

    repeats: int = 5
    toy: bool = False
    limit: float = 90.0
    root: Path | None = None

    @property
    def fewer(self) -> int:
        """Rounds of the comparisons beside the main one."""
        return min(self.repeats, 3)


class Row(NamedTuple):
    """One line of a table.

    :param name: What was measured; unique in its topic.
    :param values: Numbers by column; None prints as nothing.
    """

    name: str
    values: Mapping[str, Value]


class Target(NamedTuple):
    """A bound that a value is held to.

    :param row: Name of the row.
    :param column: The column.
    :param sense: ``"at least"`` or ``"at most"``.
    :param bound: The bound.
    """

    row: str
    column: str
    sense: Literal["at least", "at most"]
    bound: float


@dataclass
class Topic:
    """One table.

    :param title: Its heading.
    :param rows: Its rows.
    :param notes: What a reader has to know, and what was skipped.
    :param targets: Bounds on its values.
    """

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    targets: Sequence[Target] = ()

    def value(self, row: str, column: str) -> Value:
        """The value in a cell, None if it was not measured."""
        return next((r.values.get(column) for r in self.rows if r.name == row), None)

    def verdicts(self) -> list[dict[str, Any]]:
        """Each target with what was measured and whether it is reached (by the median)."""
        found = []
        for target in self.targets:
            value = self.value(target.row, target.column)
            number = value.median if isinstance(value, Stat) else value
            if isinstance(number, (int, float)):
                reached = number >= target.bound if target.sense == "at least" else number <= target.bound
                found.append({**target._asdict(), "measured": number, "reached": reached})
        return found

    def as_json(self) -> dict[str, Any]:
        """The topic as plain values."""
        rows = [
            {
                "name": row.name,
                "values": {
                    k: v._asdict() if isinstance(v, Stat) else v for k, v in row.values.items() if v is not None
                },
            }
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows, "notes": self.notes, "targets": self.verdicts()}


def show(topic: Topic, console: Console | None = None) -> None:
    """Print a topic as a table, with its notes and targets.

    :param topic: The topic.
    :param console: Where to; None is standard output.
    """
    console = console or Console(width=None if os.isatty(1) else 200)
    columns = list(dict.fromkeys(column for row in topic.rows for column in row.values))
    table = Table(title=topic.title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for row in topic.rows:
        table.add_row(row.name, *(shown(row.values.get(column)) for column in columns))
    console.print(table)
    for verdict in topic.verdicts():
        word = "reached" if verdict["reached"] else "MISSED"
        console.print(
            f"  {word}: {verdict['row']}, {verdict['column']} {verdict['measured']:.3g}, "
            f"{verdict['sense']} {verdict['bound']:g}",
            markup=False,
        )
    for note in topic.notes:
        console.print(f"  {note}", markup=False, style="dim")


def shown(value: Value) -> str:
    """A value as text: a measured one with its quartiles."""
    if value is None:
        return ""
    if isinstance(value, Stat):
        return f"{_number(value.median)} \\[{_number(value.q1)}, {_number(value.q3)}]"
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"


def environment() -> dict[str, Any]:
    """What the numbers depend on: versions, threads, processor."""
    names = ("art-lbgat", "torch", "torchvision", "adversarial-robustness-toolbox", "numpy", "pyautoattack")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write(path: Path, topics: Mapping[str, Topic], settings: Mapping[str, Any]) -> None:
    """Write JSON.

    :param path: The file; its folder is made.
    :param topics: By name.
    :param settings: How it was measured.
    """
    content = {
        "environment": environment(),
        "settings": dict(settings),
        "topics": {name: topic.as_json() for name, topic in topics.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
