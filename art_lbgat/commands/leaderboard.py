"""``art-lbgat leaderboard`` and ``art-lbgat compare``: RobustBench's published rows, and where a result stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lbgat.commands import shared

_SHOWN = ("rank", "model_id", "robust_acc", "clean_acc", "eps_measured", "architecture", "additional_data", "venue")


def leaderboard(
    dataset: Annotated[str, typer.Argument(help="cifar10, cifar100 or imagenet.")] = "cifar10",
    threat_model: Annotated[str, typer.Argument(help="Linf, L2, corruptions or corruptions_3d.")] = "Linf",
    top: Annotated[int, typer.Option(help="Rows that are printed; 0 for all.")] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write all rows and columns to this new file.")] = None,
) -> None:
    """Print a leaderboard of RobustBench, best first, with the radius that each row was truly measured at."""
    with shared.one_message():
        from art_lbgat.checks import check_count
        from art_lbgat.files import write_text
        from art_lbgat.robustbench import leaderboard as rows_of

        check_count(top, "top", minimum=0)
        shared.new_file(csv, "csv")
        rows = rows_of(dataset, threat_model)
        if csv is not None:
            write_text(csv, rows.to_csv(index=False))
        shown = rows[list(_SHOWN)].head(top or len(rows))
        shared.print_frame(f"RobustBench, {dataset} {threat_model}, {len(shown)} of {len(rows)} rows", shown)


def compare(
    result: Annotated[str, typer.Argument(help="A JSON file of benchmark --save, or the id of a published row.")],
    dataset: Annotated[str | None, typer.Option(help="With an id: cifar10, cifar100 or imagenet.")] = None,
    threat_model: Annotated[str | None, typer.Option(help="With an id: Linf, L2, corruptions, ...")] = None,
    n_rows: Annotated[int, typer.Option(help="Other rows that are shown.")] = 10,
    csv: Annotated[Path | None, typer.Option(help="Write the rows around it to this new file.")] = None,
) -> None:
    """Say where a result stands, or would stand, on its leaderboard, and whether that is like for like."""
    with shared.one_message():
        from art_lbgat.files import write_text
        from art_lbgat.robustbench import BenchmarkResult
        from art_lbgat.robustbench import compare as place

        shared.new_file(csv, "csv")
        path = Path(result)
        is_file = path.suffix == ".json" or len(path.parts) > 1
        if is_file and not path.is_file():
            raise FileNotFoundError(f"result: there is no file {path}; expected one that benchmark --save wrote.")
        found = place(BenchmarkResult.load(path) if is_file else result, dataset, threat_model, n_rows=n_rows)
        typer.echo(found)
        if csv is not None:
            write_text(csv, found.around.to_csv(index=False))
