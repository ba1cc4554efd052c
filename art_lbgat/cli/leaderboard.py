"""``art-lbgat leaderboard``, ``compare`` and ``benchmark``: RobustBench's rows, and where a result stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lbgat.cli.judge import TARGET, choose_device, find_target
from art_lbgat.cli.output import new_file, print_frame, say

_SHOWN = ("rank", "model_id", "robust_acc", "clean_acc", "eps_measured", "architecture", "additional_data", "venue")


def leaderboard(
    dataset: Annotated[str, typer.Argument(help="cifar10, cifar100 or imagenet.")] = "cifar10",
    threat_model: Annotated[str, typer.Argument(help="Linf, L2, corruptions or corruptions_3d.")] = "Linf",
    top: Annotated[int, typer.Option(help="Rows that are printed; 0 for all.")] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write all rows and columns to this new file.")] = None,
) -> None:
    """Print a leaderboard of RobustBench, best first, with the radius that each row was truly measured at."""
    from art_lbgat.checks import check_count
    from art_lbgat.files import write_text
    from art_lbgat.robustbench import leaderboard as rows_of

    check_count(top, "top", minimum=0)
    new_file(csv, "csv")
    rows = rows_of(dataset, threat_model)
    if csv is not None:
        write_text(csv, rows.to_csv(index=False))
    shown = rows[list(_SHOWN)].head(top or len(rows))
    print_frame(f"RobustBench, {dataset} {threat_model}, {len(shown)} of {len(rows)} rows", shown)


def compare(
    result: Annotated[str, typer.Argument(help="A JSON file of benchmark --save, or the id of a published row.")],
    dataset: Annotated[str | None, typer.Option(help="With an id: cifar10, cifar100 or imagenet.")] = None,
    threat_model: Annotated[str | None, typer.Option(help="With an id: Linf, L2, corruptions, ...")] = None,
    n_rows: Annotated[int, typer.Option(help="Other rows that are shown.")] = 10,
    csv: Annotated[Path | None, typer.Option(help="Write the rows around it to this new file.")] = None,
) -> None:
    """Say where a result stands, or would stand, on its leaderboard, and whether that is like for like."""
    from art_lbgat.files import write_text
    from art_lbgat.robustbench import BenchmarkResult
    from art_lbgat.robustbench import compare as place

    new_file(csv, "csv")
    path = Path(result)
    is_file = path.suffix == ".json" or len(path.parts) > 1
    if is_file and not path.is_file():
        raise FileNotFoundError(f"result: there is no file {path}; expected one that benchmark --save wrote.")
    found = place(BenchmarkResult.load(path) if is_file else result, dataset, threat_model, n_rows=n_rows)
    say(found)
    if csv is not None:
        write_text(csv, found.around.to_csv(index=False))


def benchmark(
    target: Annotated[str, typer.Argument(help=TARGET)],
    dataset: Annotated[str, typer.Option(help="cifar10, cifar100 or imagenet.")] = "cifar10",
    threat_model: Annotated[str, typer.Option(help="Linf, L2, corruptions or corruptions_3d.")] = "Linf",
    eps: Annotated[float | None, typer.Option(help="Radius; that of the leaderboard if left out.")] = None,
    n: Annotated[int | None, typer.Option(help="So many of the first images; all, which is the standard.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the images lie.")] = Path("data"),
    corruptions_data_dir: Annotated[Path | None, typer.Option(help="Where corrupted images lie.")] = None,
    model_dir: Annotated[Path, typer.Option(help="Directory of the zoo's weights.")] = Path("models"),
    attack: Annotated[list[str] | None, typer.Option(help="Only this attack of AutoAttack; repeatable.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per batch.")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of every attack.")] = 0,
    state: Annotated[Path | None, typer.Option(help="Directory of finished batches, to resume from.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the result to this new JSON file.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False,
) -> None:
    """Evaluate a classifier by RobustBench's standard, say what differs from it, and where it would stand."""
    import sys

    from art_lbgat.processes import is_main_process
    from art_lbgat.robustbench import benchmark as measure
    from art_lbgat.robustbench import compare as place
    from art_lbgat.robustbench.result import EPS, NORMS, check_board

    new_file(save, "save")
    check_board(dataset, threat_model)
    found = find_target(target, dataset, threat_model, model_dir, choose_device(device))
    result = measure(
        found.classifier, dataset, threat_model, eps, n, data_dir=data_dir, corruptions_data_dir=corruptions_data_dir,
        attacks=attack or "standard", batch_size=batch_size, seed=seed, state_path=state, model_name=name or found.name,
        architecture=found.run.recipe.model if found.run else None, verbose=sys.stderr.isatty() and not quiet,
    )  # fmt: skip
    if not is_main_process():
        return
    if save is not None:
        result.save(save)
    if not quiet:
        say(result)
        if (dataset, threat_model) in EPS or threat_model not in NORMS:
            say(place(result))
