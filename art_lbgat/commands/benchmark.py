"""``art-lbgat benchmark``: the number that RobustBench's benchmark gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lbgat.commands import shared
from art_lbgat.commands.evaluate import TARGET


def benchmark(
    target: Annotated[str, typer.Argument(help=TARGET)],
    dataset: Annotated[str, typer.Option(help="cifar10, cifar100 or imagenet.")] = "cifar10",
    threat_model: Annotated[str, typer.Option(help="Linf, L2, corruptions or corruptions_3d.")] = "Linf",
    eps: Annotated[float | None, typer.Option(help="Radius; that of the leaderboard if left out.")] = None,
    n: Annotated[int | None, typer.Option(help="So many of the first images; all, which is the standard.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the images lie.")] = Path("data"),
    corruptions_data_dir: Annotated[Path | None, typer.Option(help="Where corrupted images lie.")] = None,
    model_dir: Annotated[Path, typer.Option(help="Directory of the zoo's weights.")] = Path("models"),
    attack: Annotated[
        list[str] | None, typer.Option(help="Only this attack of AutoAttack, which is no standard; repeat for several.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images judged together.")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of every attack.")] = 0,
    state: Annotated[Path | None, typer.Option(help="File of finished batches, to go on from after a stop.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the result to this new JSON file.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False,
) -> None:
    """Judge a classifier by RobustBench's standard, say what differs from it, and where it would stand."""
    with shared.one_message():
        import sys

        from art_lbgat.commands.targets import find_target
        from art_lbgat.processes import is_main_process
        from art_lbgat.robustbench import benchmark as run
        from art_lbgat.robustbench import compare
        from art_lbgat.robustbench.result import EPS, NORMS, check_dataset, check_threat_model

        shared.new_file(save, "save")
        check_dataset(dataset)
        check_threat_model(threat_model)
        device_type = shared.choose_device(device)
        found = find_target(
            target, dataset=dataset, threat_model=threat_model, model_dir=model_dir, device_type=device_type
        )
        result = run(
            found.classifier,
            dataset,
            threat_model,
            eps,
            n,
            data_dir=data_dir,
            corruptions_data_dir=corruptions_data_dir,
            attacks=attack or "standard",
            batch_size=batch_size,
            seed=seed,
            state_path=state,
            model_name=name or found.name,
            architecture=None if found.plan is None else found.plan.recipe.model,
            verbose=sys.stderr.isatty() and not quiet,
        )
        if not is_main_process():
            return
        if save is not None:
            result.save(save)
        if not quiet:
            typer.echo(result)
            if (dataset, threat_model) in EPS or threat_model not in NORMS:
                typer.echo(compare(result))
