"""What the subcommands share: one message for bad input, progress lines, study tables and their files."""

from __future__ import annotations

import json
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    import pandas

    from art_lbgat.study import StudyOptions

Spread = Literal["std", "ci"]
_SPREADS = {"std": "standard deviation", "ci": "half of the 95 % interval"}


@contextmanager
def one_message() -> Iterator[None]:
    """Bad input ends with exit code 2 and one line, an interruption with 130."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def progress_lines() -> Callable[[int, int, dict[str, Any]], None]:
    """A report for ``run_study`` that prints a line per run to stderr."""
    from rich.console import Console

    start, console = time.perf_counter(), Console(stderr=True)

    def report(done: int, total: int, row: dict[str, Any]) -> None:
        line = (
            f"[{done:>2}/{total}] {time.perf_counter() - start:4.0f} s  {row['recipe']:<20} eps {row['eps']:.3g} "
            f"seed {row['seed']}: natural {row['natural']:.1%}, PGD-20 {row['pgd-20']:.1%}"
        )
        if "autoattack" in row:
            line += f", AutoAttack {row['autoattack']:.1%}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    return report


def print_study(title: str, summary: pandas.DataFrame, runs: pandas.DataFrame, spread: Spread = "ci") -> None:
    """The table of a study on the terminal, and what AutoAttack warned of."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for eps, part in summary.groupby("eps", sort=False):
        table = Table(title=f"{title}, eps = {eps:.4g}: mean ± {_SPREADS[spread]} over seeds")
        for i, header in enumerate(_headers(part, runs)):
            table.add_column(header.replace(" (", "\n("), justify="left" if i == 0 else "right")
        for line in _rows(part, spread):
            table.add_row(*line)
        console.print(table)
    for label in _labels(runs):
        console.print(label, highlight=False, markup=False)
    # The same warning with other percentages is one line, with the number of runs that it was raised in.
    flags = Counter(re.sub(r"[\d.]+%", "some %", flag) for flag in runs["flags"] if flag)
    for flag, count in sorted(flags.items()):
        text = f"AutoAttack warns in {count} of {len(runs)} runs (see runs.csv): {flag}"
        console.print(text, highlight=False, markup=False)


def save_study(
    output: Path,
    command: str,
    options: StudyOptions,
    runs: pandas.DataFrame,
    summary: pandas.DataFrame,
    seconds: float,
    spread: Spread = "ci",
) -> None:
    """``runs.csv``, ``summary.csv``, ``table.md`` and ``results.json`` (all of it, with settings and versions)."""
    import art
    import torch

    import art_lbgat

    runs.to_csv(output / "runs.csv", index=False)
    summary.to_csv(output / "summary.csv", index=False)
    settings = {name: value for name, value in vars(options).items() if name not in ("arms", "root")}
    record = {
        "command": command,
        "options": {**settings, "seeds": list(options.seeds)},
        "arms": {arm: options.recipe(arm).as_dict() for arm in options.arms},
        "versions": {
            "art_lbgat": art_lbgat.__version__,
            "art": art.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "seconds": seconds,
        "summary": json.loads(summary.to_json(orient="records")),
        "runs": json.loads(runs.to_json(orient="records")),
    }
    (output / "results.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (output / "table.md").write_text(_markdown(summary, runs, spread), encoding="utf-8")


def _measures(summary: pandas.DataFrame) -> list[str]:
    from art_lbgat.study.table import MEASURES

    return [name for name in MEASURES if f"{name}_mean" in summary]


def _headers(summary: pandas.DataFrame, runs: pandas.DataFrame) -> list[str]:
    titles = {"natural": "natural", "pgd-20": "PGD-20", "autoattack": "AutoAttack"}
    counts = {"natural": "n", "pgd-20": "n", "autoattack": "n_autoattack"}
    headers = ["method"]
    headers += [f"{titles[name]} % (n={int(runs[counts[name]].max())})" for name in _measures(summary)]
    headers += [f"{titles[name]} vs first" for name in _measures(summary) if f"{name}_diff" in summary]
    return [*headers, "training s"]


def _rows(summary: pandas.DataFrame, spread: Spread) -> list[list[str]]:
    from art_lbgat.study.table import cell

    names = _measures(summary)
    rows = []
    for row in summary.to_dict("records"):
        line = [str(row["arm"]), *(cell(row[f"{name}_mean"], row[f"{name}_{spread}"]) for name in names)]
        line += [cell(row[f"{n}_diff"], row[f"{n}_diff_ci"]) for n in names if f"{n}_diff" in summary]
        rows.append([*line, f"{row['train_seconds']:.0f}"])
    return rows


def _markdown(summary: pandas.DataFrame, runs: pandas.DataFrame, spread: Spread) -> str:
    parts = []
    for eps, part in summary.groupby("eps", sort=False):
        headers = _headers(part, runs)
        lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *_rows(part, spread)]
        parts.append(
            f"eps = {eps:.4g}, mean ± {_SPREADS[spread]} over seeds\n\n"
            + "\n".join(f"| {' | '.join(line)} |" for line in lines)
            + "\n"
        )
    return "\n".join([*parts, *(f"{line}\n" for line in _labels(runs))])


def _labels(runs: pandas.DataFrame) -> list[str]:
    """What makes the numbers other than standard ones on the test set."""
    lines = []
    if "validation" in set(runs.get("part", ())):
        lines.append("Judged on the validation part, to choose settings by; these are no test results.")
    chosen = runs[runs["selection"] == "test"] if "selection" in runs else runs[:0]
    if len(chosen):
        names = ", ".join(dict.fromkeys(chosen["arm"]))
        lines.append(f"Epoch chosen on the test set (a reproduction, not a fair result): {names}.")
    kinds = sorted({kind for kind in runs.get("autoattack_kind", ()) if kind != "autoattack (standard)"})
    if kinds:
        lines.append(f"AutoAttack is not the standard one: {', '.join(map(str, kinds))}.")
    return lines
