"""``art-lbgat``: the command line."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas

    from art_lbgat.study import StudyOptions

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Boundary guided adversarial training for the Adversarial Robustness Toolbox.",
)


@app.callback()
def _root() -> None:
    """Boundary guided adversarial training for the Adversarial Robustness Toolbox."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for runs.csv, summary.csv, results.json and the table.")] = Path(
        "results/demo"
    ),
    eps: Annotated[list[float] | None, typer.Option(help="Radius of the Linf ball; repeat for several.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeat for several.")] = None,
    part: Annotated[str, typer.Option(help="What is judged: test, or validation to choose settings by.")] = "test",
    guide_ce_weight: Annotated[float | None, typer.Option(help="LBGAT: weight of the guide's cross-entropy.")] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs of every method.")] = None,
    n_autoattack: Annotated[int | None, typer.Option(help="Test images that AutoAttack judges, per seed.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if left out.")] = None,
) -> None:
    """Train a guide, the baselines, BGAT and LBGAT on real digits, judge all with AutoAttack, print one table."""
    from rich.console import Console

    from art_lbgat.study import StudyOptions, run_study, summarize

    console = Console()
    try:
        options = StudyOptions()
        given: dict[str, Any] = {"nb_epochs": nb_epochs, "n_autoattack": n_autoattack, "workers": workers, "part": part}
        given["guide_ce_weight"] = guide_ce_weight
        if method:
            given["methods"] = tuple(method)
        if eps:
            given["eps"] = tuple(eps)
        if seeds is not None:
            given["seeds"] = tuple(range(seeds))
        options = replace(options, **{name: value for name, value in given.items() if value is not None})
        output.mkdir(parents=True, exist_ok=True)
    except (TypeError, ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    start = time.perf_counter()
    progress = Console(stderr=True)

    def report(done: int, total: int, row: dict[str, Any]) -> None:
        progress.print(
            f"[{done:>2}/{total}] {time.perf_counter() - start:4.0f} s  {row['method']:<17} eps {row['eps']:g} "
            f"seed {row['seed']}: natural {row['natural']:.1%}, AutoAttack {row['autoattack']:.1%}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    try:
        runs = run_study(options, report)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
    seconds = time.perf_counter() - start
    summary = summarize(runs)
    _save(output, options, runs, summary, seconds)
    _print(console, options, runs, summary)
    console.print(f"{len(runs)} runs in {seconds:.0f} s; saved in {output}", highlight=False)


def _save(
    output: Path, options: StudyOptions, runs: pandas.DataFrame, summary: pandas.DataFrame, seconds: float
) -> None:
    import platform

    import art
    import torch

    import art_lbgat

    runs.to_csv(output / "runs.csv", index=False)
    summary.to_csv(output / "summary.csv", index=False)
    record = {
        "command": "art-lbgat demo",
        "options": asdict(options),
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
    (output / "table.md").write_text(_markdown(summary, runs), encoding="utf-8")


def _rows(summary: pandas.DataFrame) -> list[list[str]]:
    from art_lbgat.study import cell

    return [
        [
            row["method"],
            cell(row["natural_mean"], row["natural_std"]),
            cell(row["pgd-20_mean"], row["pgd-20_std"]),
            cell(row["autoattack_mean"], row["autoattack_std"]),
            f"{row['train_seconds']:.0f}",
        ]
        for row in summary.to_dict("records")
    ]


def _headers(runs: pandas.DataFrame) -> list[str]:
    whole, part = int(runs["n"].max()), int(runs["n_autoattack"].max())
    return ["method", f"natural % (n={whole})", f"PGD-20 % (n={whole})", f"AutoAttack % (n={part})", "training s"]


def _markdown(summary: pandas.DataFrame, runs: pandas.DataFrame) -> str:
    parts = []
    for eps, part in summary.groupby("eps", sort=False):
        lines = [_headers(runs), ["---", *["---:"] * 4], *_rows(part)]
        parts.append(f"Digits, Linf, eps = {eps:g}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(parts)


def _print(console: Any, options: StudyOptions, runs: pandas.DataFrame, summary: pandas.DataFrame) -> None:
    from rich.table import Table

    for eps, part in summary.groupby("eps", sort=False):
        table = Table(
            title=f"Digits (real 8x8 images), Linf, eps = {eps:g}: mean ± spread over {len(options.seeds)} seeds"
        )
        for i, header in enumerate(_headers(runs)):
            table.add_column(header.replace(" (", "\n("), justify="left" if i == 0 else "right", no_wrap=True)
        for line in _rows(part):
            table.add_row(*line)
        console.print(table)
    # The same warning with other percentages is one line, with the number of runs that it was raised in.
    flags = Counter(re.sub(r"[\d.]+%", "some %", flag) for flag in runs["flags"] if flag)
    for flag, count in sorted(flags.items()):
        text = f"AutoAttack warns in {count} of {len(runs)} runs (see runs.csv): {flag}"
        console.print(text, highlight=False, markup=False)


def main() -> None:
    """Entry point of the ``art-lbgat`` command."""
    app()
