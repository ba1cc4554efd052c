"""The question that the page answers, in plain words and from the numbers alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from art_lbgat.report.results import Results
from art_lbgat.report.tables import MINUS, SPACE, interval, number, percent, whole

if TYPE_CHECKING:
    from art_lbgat.robustbench import Comparison

_MEANINGS = {
    "square stronger": "an attack without gradients broke more than 0.2 % that those with gradients had left, so these "
    "may have been misled",
    "zero gradients": "some gradients are exactly 0, which stops attacks that follow them",
    "few classes": "the attack had fewer target classes than the standard",
}
QUESTION = "Which model is the most robust, and what does it cost in natural accuracy?"


def answer(results: Results, threat: str = "", comparison: Comparison | None = None) -> list[str]:
    """The answer, a sentence or two per line, the most important first.

    :param results: The models.
    :param threat: What ``robust`` was measured with.
    :param comparison: Where one of them stands on the leaderboard, or None.
    """
    rows = results.table.to_dict("records")
    ours, others = [r for r in rows if r["ours"]], [r for r in rows if not r["ours"]]
    best, under = rows[0], threat or results.attack
    which = "" if len(rows) == 1 else f" is the most robust of the {len(rows)} models judged here"
    said = [f"{best['model']}{which}: {_both(best)}{f' ({under})' if under else ''}."]
    compared = []
    if ours and others:
        compared = [ours[0], others[0]]
    elif len(rows) > 1:
        compared = rows[:2]
    if compared:
        said.append(_comparison(compared[0], compared[1], best))
    natural = max(rows, key=lambda row: row["natural"])
    if all(natural is not row for row in (best, *compared)):
        said.append(f"The most accurate on natural images is {natural['model']}: {_both(natural)}.")
    if comparison is not None:
        said.append(_rank(comparison))
    return said


def warnings(results: Results) -> list[str]:
    """What the evaluation itself says against a number, a line for models of which it says the same.

    :param results: The models.
    """
    by: dict[str, list[str]] = {}
    for row in results.table.to_dict("records"):
        if isinstance(row["flags"], str) and row["flags"]:
            by.setdefault(row["flags"], []).append(str(row["model"]))
    return [f"{', '.join(names)}: {flags}{_meaning(flags)}" for flags, names in by.items()]


def _meaning(flags: str) -> str:
    """What the flags of AutoAttack among them mean; the others are sentences already."""
    known = [meaning for flag, meaning in _MEANINGS.items() if flag in flags]
    return f" ({'; '.join(known)})" if known else ""


def _both(row: dict[Any, Any]) -> str:
    return f"{_accuracy(row, 'robust')} robust, {_accuracy(row, 'natural')} natural"


def _accuracy(row: dict[Any, Any], kind: str) -> str:
    ends = interval(row[f"{kind}_low"], row[f"{kind}_high"])
    return f"{percent(row[kind])}{SPACE}%{f' {ends}' if ends else ''}"


def _comparison(first: dict[Any, Any], second: dict[Any, Any], best: dict[Any, Any]) -> str:
    """The first against the second; numbers that the sentence before has said are not said again."""
    own, other = ("" if row is best else f" ({_both(row)})" for row in (first, second))
    robust, natural = (_points(first[kind], second[kind]) for kind in ("robust", "natural"))
    role = "baseline" if first["ours"] else "of the others"
    text = (
        f"{first['model']}{own} against {second['model']}, the most robust {role}{other}: {robust} robust, {natural} "
        "natural."
    )
    low, high, other_low, other_high = (row[f"robust_{end}"] for row in (first, second) for end in ("low", "high"))
    if any(map(math.isnan, (low, high, other_low, other_high))):
        return text
    if low > other_high or other_low > high:
        return f"{text} The intervals of robust accuracy do not overlap."
    return (
        f"{text} The intervals of robust accuracy overlap, so these numbers alone do not settle which of the two is "
        "more robust."
    )


def _points(first: float, second: float) -> str:
    difference = number(100 * first - 100 * second)
    sign = "" if difference.startswith(MINUS) or float(difference) == 0 else "+"
    return f"{sign}{difference} points"


def _rank(found: Comparison) -> str:
    return (
        f"On the RobustBench leaderboard {found.dataset} {found.threat_model}, {found.model_name} ranks "
        f"{whole(found.rank)} of {whole(found.of)} with {number(found.robust_acc, 2)} % (ranks "
        f"{whole(found.best_rank)} to {whole(found.worst_rank)} by its 95 % interval); {found.label}."
    )
