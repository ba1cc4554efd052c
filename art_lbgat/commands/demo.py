"""``art-lbgat demo``: every method on real digits, in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_lbgat.commands import shared

if TYPE_CHECKING:
    from art_lbgat.recipes import Recipe

ARMS = {
    "Natural (guide)": "digits-natural",
    "PGD-AT": "digits-madry",
    "TRADES (6)": "digits-trades6",
    "BGAT": "digits-bgat",
    "LBGAT": "digits-lbgat",
    "LBGAT+TRADES (0)": "digits-lbgat0",
    "LBGAT+TRADES (6)": "digits-lbgat6",
}


def demo(
    output: Annotated[Path, typer.Option(help="Folder for runs.csv, summary.csv, results.json and the table.")] = Path(
        "results/demo"
    ),
    eps: Annotated[list[float] | None, typer.Option(help="Radius of the Linf ball; repeat for several.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 2,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeat for several.")] = None,
    part: Annotated[str, typer.Option(help="What is judged: test, or validation to choose settings by.")] = "test",
    guide_ce_weight: Annotated[float | None, typer.Option(help="LBGAT: weight of the guide's cross-entropy.")] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs of every method.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="Test images that AutoAttack judges, per seed.")] = 100,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if left out.")] = None,
) -> None:
    """Train a guide, the baselines, BGAT and LBGAT on real digits, judge all with AutoAttack, print one table."""
    with shared.one_message():
        import pandas

        from art_lbgat.study import StudyOptions, run_study, summarize

        options = [
            StudyOptions(
                _arms(radius, method, guide_ce_weight),
                seeds=tuple(range(seeds)),
                nb_epochs=nb_epochs,
                part=part,  # type: ignore[arg-type]  # checked there
                n_autoattack=n_autoattack,
                workers=workers,
            )
            for radius in eps or [0.3]
        ]
        output.mkdir(parents=True, exist_ok=True)
        start, report = time.perf_counter(), shared.progress_lines()
        runs = pandas.concat([run_study(each, report=report) for each in options], ignore_index=True)
        seconds = time.perf_counter() - start
        summary = summarize(runs)
        shared.save_study(output, "art-lbgat demo", options[0], runs, summary, seconds, "std")
        shared.print_study("Digits (real 8x8 images), Linf", summary, runs, "std")
        typer.echo(f"{len(runs)} runs in {seconds:.0f} s; saved in {output}")


def _arms(eps: float, methods: list[str] | None, guide_ce_weight: float | None) -> dict[str, Recipe]:
    from art_lbgat.checks import check_choice
    from art_lbgat.recipes import RECIPES

    arms = {}
    for name in methods or ARMS:
        changes: dict[str, Any] = {"eps": eps}
        recipe = RECIPES[ARMS[check_choice(name, "method", ARMS)]]
        if guide_ce_weight is not None and recipe.method == "lbgat":
            changes["guide_ce_weight"] = guide_ce_weight
        arms[name] = recipe.override(**changes)
    return arms
