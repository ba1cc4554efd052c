"""``art-lbgat study``: any recipes x seeds on one data set, resumable."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from art_lbgat.commands import shared, study_tables
from art_lbgat.commands.choosing import complete_recipe, find_recipe, read_settings

if TYPE_CHECKING:
    from art_lbgat.recipes import Recipe


def study(
    output: Annotated[Path, typer.Option(help="Folder of the study; given again, only missing runs are run.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="Id of a recipe, or a YAML or TOML file; repeat for several.", autocompletion=complete_recipe
        ),
    ] = None,
    ablation: Annotated[
        str | None, typer.Option(help="An ablation: guidance, alpha, guide-depth, ensemble, regularizer.")
    ] = None,
    base: Annotated[str, typer.Option(help="The recipe that the ablation varies.")] = "digits-lbgat",
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    root: Annotated[Path | None, typer.Option(help="Where the data lies; not needed for the digits.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only so many training images.")] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs of every run, milestones in proportion.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="field=value in every recipe; repeat for several.")
    ] = None,
    part: Annotated[str, typer.Option(help="What is judged: test, or validation to choose settings by.")] = "test",
    n_test: Annotated[int | None, typer.Option(help="Images for natural accuracy and PGD-20; all if left out.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="Images that AutoAttack judges, per seed; 0 for none.")] = 100,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if left out.")] = None,
) -> None:
    """Train and judge recipes with several seeds; one table of means, intervals and differences to the first recipe."""
    with shared.one_message():
        from art_lbgat.commands.study_models import keep_models
        from art_lbgat.study import StudyOptions, run_study, summarize
        from art_lbgat.study.run import first_data

        arms = _arms(recipe, ablation, base, set_ or [])
        options = StudyOptions(
            arms,
            seeds=tuple(range(seeds)),
            root=root,
            limit=limit,
            nb_epochs=nb_epochs,
            part=part,  # type: ignore[arg-type]  # checked there
            n_test=n_test,
            n_autoattack=n_autoattack,
            workers=workers,
        )
        start = time.perf_counter()
        with study_tables.study_directory(output):
            runs = run_study(options, output, shared.progress_lines())
        seconds = time.perf_counter() - start
        first = next(iter(arms))
        summary = summarize(runs, baseline=first if len(arms) > 1 else None)
        command, data = shared.typed(), next(iter(arms.values())).data
        study_tables.save_study(output, command, options, runs, summary, seconds)
        study_tables.print_study(data, summary, runs)
        saved = f"{len(runs)} runs; {seconds:.0f} s; saved in {output}"
        if len({(each.eps, each.norm) for each in arms.values()}) > 1:
            typer.echo(f"{saved}; no page, since the recipes differ in eps or norm")
            return
        typer.echo("making the page", err=True)
        images = first_data(options)
        keep_models(options, output, runs, images)
        page = study_tables.write_study_page(
            output / "report.html", options, output, runs, images, title=f"Study on {data}", command=command
        )
        typer.echo(f"{saved}; open {page}")


def _arms(recipes: list[str] | None, ablation: str | None, base: str, settings: list[str]) -> dict[str, Recipe]:
    from art_lbgat.recipes import ablation as vary

    if bool(recipes) == (ablation is not None):
        raise ValueError("recipe: expected either --recipe or --ablation.")
    changes = read_settings(settings)
    if ablation is not None:
        arms = vary(ablation, find_recipe(base))
    else:
        found = [find_recipe(name) for name in recipes or []]
        arms = {each.id: each for each in found}
        if len(arms) < len(found):
            raise ValueError(f"recipe: expected different ids, got {[each.id for each in found]}.")
    return {label: each.override(**changes) for label, each in arms.items()}
