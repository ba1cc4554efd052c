"""``art-lbgat report``: the page of a finished run again, with baselines beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from art_lbgat.commands import shared

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier


def report(
    directory: Annotated[Path, typer.Argument(help="Directory of a run of art-lbgat train.")],
    output: Annotated[Path | None, typer.Option(help="The HTML file; DIRECTORY/report.html if left out.")] = None,
    baseline: Annotated[
        list[Path] | None, typer.Option(help="Directory of another run, to be shown beside it; repeat for several.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="Images, the same number of each class; all if left out.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="AutoAttack too, on so many of them; 0 for none.")] = 0,
    root: Annotated[
        Path | None, typer.Option(help="Where the data lies; where it lay in training if left out.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Make the page of a run again: results, curves, pictures, decision regions, sanity checks, provenance."""
    with shared.one_message():
        import pandas

        from art_lbgat.commands.judging import Judging, images, judge, write_page
        from art_lbgat.commands.run_directory import RunDirectory
        from art_lbgat.commands.targets import find_target

        for option, path in (("directory", directory), *(("baseline", path) for path in baseline or [])):
            if not RunDirectory(path).exists():
                raise FileNotFoundError(f"{option}: there is no run in {path}; expected the --output of a training.")
        places = [path.resolve() for path in (directory, *(baseline or []))]
        if len(set(places)) < len(places):
            raise ValueError(f"baseline: expected different runs, got {', '.join(map(str, baseline or []))}.")
        shared.new_file(output, "output")
        device_type = shared.choose_device(device)
        found = find_target(str(directory), device_type=device_type)
        run, plan = found.directory, found.plan
        assert run is not None  # noqa: S101 (for the type checker: it is the directory of a run)
        assert plan is not None  # noqa: S101
        others: dict[str, PyTorchClassifier] = {}
        histories = {found.name: run.history}
        epochs = {found.name: plan.recipe.nb_epochs}
        for path in baseline or []:
            other = find_target(str(path), device_type=device_type)
            taken = (found.name, *others)
            named = (other.name, f"{other.name} ({path.name})", f"{other.name} ({path})")
            name = next(each for each in named if each not in taken)
            others[name] = other.classifier
            if other.directory is not None and other.plan is not None:
                histories[name] = other.directory.history
                epochs[name] = other.plan.recipe.nb_epochs
        judging = Judging(plan.recipe.eps, plan.recipe.norm, n=n, n_autoattack=n_autoattack, seed=plan.seed)
        data = found.load_data(None, root)
        x, y = images(data, judging)
        results = judge(found.classifier if not others else {found.name: found.classifier, **others}, x, y, judging)
        target = output or run.page
        write_page(
            target, found.classifier, x, y, judging, results,
            name=found.name,
            title=title or f"{found.name} on {plan.data_title}",
            baselines=others or None,
            guide=found.guide(device_type),
            history={name: pandas.read_csv(path) for name, path in histories.items() if path.is_file()},
            notes=_budgets(epochs),
            data=found.data,
            class_names=data.class_names,
            config=plan.as_toml(),
            commands=[shared.typed()],
        )  # fmt: skip
        typer.echo(f"saved in {target}")


def _budgets(epochs: Mapping[str, int]) -> list[str]:
    """That models were not trained for equally long, if so."""
    if len(set(epochs.values())) < 2:
        return []
    return [f"Trained for different numbers of epochs: {', '.join(f'{name} {n}' for name, n in epochs.items())}."]
