"""``art-lbgat demo``: every method on real digits, or on a folder of your own images, in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_lbgat.commands import shared, study_tables

if TYPE_CHECKING:
    from art_lbgat.recipes import Recipe

ARMS = {
    "Natural (guide)": "natural",
    "PGD-AT": "madry",
    "TRADES (6)": "trades6",
    "BGAT": "bgat",
    "LBGAT": "lbgat",
    "LBGAT+TRADES (0)": "lbgat0",
    "LBGAT+TRADES (6)": "lbgat6",
}
EPS = {"digits": 0.3, "folder": 8 / 255}


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for the runs, tables and page; given again, only missing runs are run.")
    ] = Path("results/demo"),
    root: Annotated[
        Path | None, typer.Option(help="Your own images, <class>/<image> or train/ and test/ of such; else the digits.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="With --root: images are cropped and resized to this square. [default: 32]")
    ] = None,
    eps: Annotated[
        list[float] | None,
        typer.Option(help="Radius of the Linf ball, of inputs in [0, 1]; repeat for several. [default: 0.3; 8/255]"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 2,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeat for several.")] = None,
    part: Annotated[str, typer.Option(help="What is judged: test, or validation to choose settings by.")] = "test",
    guide_ce_weight: Annotated[float | None, typer.Option(help="LBGAT: weight of the guide's cross-entropy.")] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs of every method.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="Test images that AutoAttack judges, per seed.")] = 100,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if left out.")] = None,
) -> None:
    """Train a guide, the baselines, BGAT and LBGAT on real digits or your images, judge all with AutoAttack."""
    with shared.one_message():
        import pandas

        from art_lbgat.commands.study_models import keep_models
        from art_lbgat.study import StudyOptions, run_study, summarize
        from art_lbgat.study.run import first_data

        if root is None and image_size is not None:
            raise ValueError(f"image_size: expected it with --root alone, got {image_size}.")
        family = "digits" if root is None else "folder"
        radii = eps or [EPS[family]]
        options = [
            StudyOptions(
                _arms(family, radius, method, guide_ce_weight, image_size),
                seeds=tuple(range(seeds)),
                root=root,
                nb_epochs=nb_epochs,
                part=part,  # type: ignore[arg-type]  # checked there
                n_autoattack=n_autoattack,
                workers=workers,
            )
            for radius in radii
        ]
        start, report = time.perf_counter(), shared.progress_lines()
        with study_tables.study_directory(output):
            tables = [run_study(each, output, report) for each in options]
        runs = pandas.concat(tables, ignore_index=True)
        seconds = time.perf_counter() - start
        summary = summarize(runs)
        command = shared.typed()
        study_tables.save_study(output, command, options[0], runs, summary, seconds, "std")
        title = "Digits (real 8x8 images)" if root is None else f"Photos in {root.resolve().name}"
        study_tables.print_study(f"{title}, Linf", summary, runs, "std")
        typer.echo("making the page", err=True)
        data = first_data(options[0])
        models: list[Path] = []
        pages: list[Path] = []
        for radius, each, table in zip(radii, options, tables, strict=True):
            several = len(radii) > 1
            models += keep_models(each, output, table, data, f" eps {radius:.4g}" if several else "")
            page = output / (f"report-eps{radius:.4g}.html" if several else "report.html")
            pages.append(study_tables.write_study_page(page, each, output, table, data, title=title, command=command))
        typer.echo(f"{len(runs)} runs in {seconds:.0f} s; saved in {output}; open {' and '.join(map(str, pages))}")
        typer.echo(f"to use a model: art-lbgat evaluate {models[-1]}, or predict, report; in Python see docs/models.md")


def _arms(
    family: str, eps: float, methods: list[str] | None, guide_ce_weight: float | None, image_size: int | None
) -> dict[str, Recipe]:
    from art_lbgat.checks import check_choice
    from art_lbgat.recipes import RECIPES

    arms = {}
    for name in methods or ARMS:
        changes: dict[str, Any] = {"eps": eps}
        recipe = RECIPES[f"{family}-{ARMS[check_choice(name, 'method', ARMS)]}"]
        if guide_ce_weight is not None and recipe.method == "lbgat":
            changes["guide_ce_weight"] = guide_ce_weight
        if image_size is not None:
            changes["image_size"] = image_size
        arms[name] = recipe.override(**changes)
    return arms
