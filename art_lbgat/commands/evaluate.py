"""``art-lbgat evaluate``: any classifier under any attacks, as a table and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lbgat.commands import shared

TARGET = "The directory of a run, a checkpoint or weights in it, a name of RobustBench's zoo, or module:function."


def evaluate(
    target: Annotated[str, typer.Argument(help=TARGET)],
    attack: Annotated[
        list[str] | None,
        typer.Option(help="natural, fgsm, pgd-20, cw-20, autoattack, worst, ...; repeat for several."),
    ] = None,
    eps: Annotated[float | None, typer.Option(help="Radius; that of the run or the leaderboard if left out.")] = None,
    norm: Annotated[str | None, typer.Option(help="inf or 2; that of the run or the leaderboard if left out.")] = None,
    n: Annotated[int | None, typer.Option(help="Images, the same number of each class; all if left out.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="AutoAttack too, on so many of them; 0 for none.")] = 0,
    data: Annotated[str | None, typer.Option(help="Name of the data; that of the target if left out.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where the data lies; not needed for the digits.")] = None,
    part: Annotated[str, typer.Option(help="test or validation.")] = "test",
    dataset: Annotated[str, typer.Option(help="Data set of a zoo name.")] = "cifar10",
    threat_model: Annotated[str, typer.Option(help="Threat model of a zoo name: Linf, L2, corruptions.")] = "Linf",
    model_dir: Annotated[Path, typer.Option(help="Directory of the zoo's weights.")] = Path("models"),
    batch_size: Annotated[int, typer.Option(help="Images judged together.")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of every attack.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    csv: Annotated[Path | None, typer.Option(help="Write the table to this new file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write a page to this new HTML file.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="Print a JSON object for each row.")] = False,
) -> None:
    """Judge a classifier: natural accuracy and PGD-20, or the attacks that are named; every x_adv is verified."""
    with shared.one_message():
        from art_lbgat.checks import check_choice
        from art_lbgat.commands.judging import Judging, images, judge, write_page
        from art_lbgat.commands.reporting import make_reporter
        from art_lbgat.commands.targets import find_target
        from art_lbgat.evaluation.attacks import plan_attacks
        from art_lbgat.files import write_text
        from art_lbgat.processes import is_main_process

        reporter = make_reporter(quiet=quiet, json_lines=json_lines)
        shared.new_file(csv, "csv")
        shared.new_file(output, "output")
        check_choice(part, "part", ("test", "validation"))
        attacks = attack or ["natural", "pgd-20"]
        if output is not None:
            attacks = ["natural", *(each for each in attacks if each != "natural")]
            if len(attacks) == 1 and not n_autoattack:
                raise ValueError("attack: expected one beside natural for a page (--output), got none.")
        plan_attacks(attacks, ["guide"])  # before anything is loaded
        device_type = shared.choose_device(device)
        found = find_target(
            target, dataset=dataset, threat_model=threat_model, model_dir=model_dir, device_type=device_type
        )
        radius = found.eps if eps is None else eps
        if radius is None:
            raise ValueError("eps: expected a radius (--eps), since the target names none.")
        kind = (found.norm or "inf") if norm is None else check_choice(norm, "norm", ("inf", "2"))
        judging = Judging(radius, kind, tuple(attacks), n, n_autoattack, batch_size, seed, part)
        x, y = images(found.load_data(data, root), judging)
        guide = found.guide(device_type) if output is not None or "transfer" in attacks else None
        sources = {"guide": guide} if guide is not None and "transfer" in attacks else None
        table = judge(found.classifier, x, y, judging, sources)
        if csv is not None and is_main_process():
            write_text(csv, table.to_csv(index=False))
        reporter.table(f"{found.name}, {part} images", table)
        if output is not None:
            title = f"{found.name}, {part} images"
            write_page(
                output, found.classifier, x, y, judging, table, name=found.name, title=title,
                is_main=is_main_process(), guide=guide,
                data=found.data if data is None else data,
                class_names=found.class_names if data in (None, found.data) else (),
                config=None if found.plan is None else found.plan.as_toml(), commands=[shared.typed()],
            )  # fmt: skip
            reporter.say(f"saved in {output}")
