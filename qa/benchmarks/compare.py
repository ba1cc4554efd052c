"""Two results side by side: ``python -m qa.benchmarks.compare OLD.json NEW.json``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

SAME = ("cpu", "gpu", "threads", "torch")


class Change(NamedTuple):
    """One number in both files.

    :param where: Topic, row and column.
    :param old: The old median.
    :param new: The new one.
    :param spread: The larger of the two interquartile ranges; 0 for what was measured once.
    """

    where: str
    old: float
    new: float
    spread: float

    @property
    def ratio(self) -> float:
        """``new / old``."""
        return self.new / self.old if self.old else float("nan")

    @property
    def beyond_spread(self) -> bool:
        """Whether the change is larger than the spread (for what was measured once: than 5 %)."""
        return abs(self.new - self.old) > (self.spread or 0.05 * abs(self.old))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Every number that both results have, in the order of the new one.

    :param old: The content of a JSON file.
    :param new: That of another.
    :return: The changes.
    """
    before = _numbers(old)
    found = []
    for where, (value, spread) in _numbers(new).items():
        if where in before:
            found.append(Change(where, before[where][0], value, max(spread, before[where][1])))
    return found


def _numbers(content: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    numbers: dict[str, tuple[float, float]] = {}
    for topic, table in content["topics"].items():
        for row in table["rows"]:
            for column, value in row["values"].items():
                where = f"{topic} | {row['name']} | {column}"
                if isinstance(value, dict):
                    numbers[where] = value["median"], value["q3"] - value["q1"]
                elif isinstance(value, (int, float)):
                    numbers[where] = float(value), 0.0
    return numbers


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the ratios; mark what changed by more than the spread.

    :param arguments: Of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m qa.benchmarks.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--changed", action="store_true", help="only what changed by more than the spread")
    given = parser.parse_args(arguments)
    old, new = (json.loads(path.read_text()) for path in (given.old, given.new))
    console = Console(width=160)
    for key in SAME:
        first, second = (content["environment"].get(key) for content in (old, new))
        if first != second:
            console.print(f"{key} differs: {first} and {second}; compare ratios, not seconds.", markup=False)
    table = Table("measure", "old", "new", "new / old", "")
    marked = 0
    for change in changes(old, new):
        marked += change.beyond_spread
        if change.beyond_spread or not given.changed:
            mark = "CHANGED" if change.beyond_spread else ""
            table.add_row(change.where, f"{change.old:.4g}", f"{change.new:.4g}", f"{change.ratio:.3f}", mark)
    console.print(table)
    console.print(f"{marked} changed by more than the spread.")


if __name__ == "__main__":
    main()
