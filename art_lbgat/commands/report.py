"""``art-lbgat report``: the page of a finished run again, with baselines beside it."""

from __future__ import annotations

import shlex
import sys
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

        for path in (directory, *(baseline or [])):
            if not RunDirectory(path).exists():
                raise FileNotFoundError(f"directory: there is no run in {path}; expected the --output of a training.")
        device_type = shared.choose_device(device)
        found = find_target(str(directory), device_type=device_type)
        run, plan = found.directory, found.plan
        assert run is not None  # noqa: S101 (for the type checker: it is the directory of a run)
        assert plan is not None  # noqa: S101
        others: dict[str, PyTorchClassifier] = {}
        for path in baseline or []:
            other = find_target(str(path), device_type=device_type)
            name = other.name if other.name not in (found.name, *others) else f"{other.name} ({path.name})"
            others[name] = other.classifier
        judging = Judging(plan.recipe.eps, plan.recipe.norm, n=n, n_autoattack=n_autoattack, seed=plan.seed)
        data = found.load_data(None, root)
        x, y = images(data, judging)
        results = judge(found.classifier if not others else {found.name: found.classifier, **others}, x, y, judging)
        target = output or run.page
        write_page(
            target, found.classifier, x, y, judging, results,
            name=found.name,
            title=title or f"{found.name} on {found.data}",
            baselines=others or None,
            guide=found.guide(device_type),
            history=pandas.read_csv(run.history) if run.history.is_file() else None,
            class_names=data.class_names,
            config=plan.as_toml(),
            commands=[shlex.join(["art-lbgat", *sys.argv[1:]])],
        )  # fmt: skip
        typer.echo(f"saved in {target}")
