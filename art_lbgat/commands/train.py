"""``art-lbgat train``: one recipe, in a directory that holds all of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from art_lbgat.commands import shared
from art_lbgat.commands.choosing import complete_recipe, read_settings

if TYPE_CHECKING:
    from art_lbgat.commands.plan import Plan
    from art_lbgat.commands.reporting import Reporter
    from art_lbgat.recipes import Recipe


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Id of a recipe, or a TOML or YAML file; with --resume that of the directory.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory of the run: checkpoints, history, weights, page.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="field=value of the recipe or the run; repeat for several.")
    ] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs; milestones and warm-up in proportion.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn; 0 if left out.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where the data lies; not needed for the digits.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only so many training images.")] = None,
    guide_weights: Annotated[
        list[Path] | None, typer.Option(help="Trained weights of a guide; repeat for several guides.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="There has to be a run in --output, which goes on.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and what it costs, by two steps; write nothing.")
    ] = False,
    n_test: Annotated[
        int | None, typer.Option(help="Test images for natural accuracy and PGD-20; all if left out.")
    ] = None,
    n_autoattack: Annotated[int, typer.Option(help="Test images that AutoAttack judges; 0 for none.")] = 0,
    report: Annotated[bool, typer.Option(help="Write the page.")] = True,
    tracker: Annotated[str | None, typer.Option(help="Also tell tensorboard, wandb or mlflow.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print a JSON object for each epoch and event.")
    ] = False,
) -> None:
    """Train a recipe, judge it, and keep everything in one directory; the same command goes on after a stop.

    With torchrun on several processes: torchrun --nproc-per-node 2 -m art_lbgat train RECIPE --output DIR
    """
    with shared.one_message():
        from art_lbgat.checks import check_count
        from art_lbgat.commands.judging import Judging
        from art_lbgat.commands.plan import make_plan
        from art_lbgat.commands.reporting import make_reporter
        from art_lbgat.commands.run_directory import RunDirectory
        from art_lbgat.commands.training import Request, run_training
        from art_lbgat.engine.signals import Interrupted

        reporter = make_reporter(quiet=quiet, json_lines=json_lines)
        plan = make_plan(
            _source(recipe, output, resume=resume),
            read_settings(set_ or []),
            nb_epochs=nb_epochs,
            seed=seed,
            limit=limit,
            root=root,
            guide_weights=guide_weights or [],
        )
        if recipe is None:  # --resume alone: as it was asked for first, but for what is said now
            known = RunDirectory(output or Path()).facts()
            n_test, tracker = n_test or known.get("n_test"), tracker or known.get("tracker")
            n_autoattack, report = n_autoattack or known.get("n_autoattack", 0), report and known.get("report", True)
        if n_test is not None:
            check_count(n_test, "n_test")
        device_type = shared.choose_device(device)
        judging = Judging(plan.recipe.eps, plan.recipe.norm, n=n_test, n_autoattack=n_autoattack, seed=plan.seed)
        if dry_run:
            if output is not None:
                RunDirectory(output).check_free(plan, resume=resume)
            _dry_run(plan, device_type, n_test, reporter)
            return
        if output is None:
            raise ValueError("output: expected a directory for the run (--output DIR), or --dry-run.")
        try:
            run_training(
                Request(plan, RunDirectory(output), judging, device_type, resume=resume, page=report, service=tracker),
                reporter,
            )
        except Interrupted:  # which the log has told of
            raise typer.Exit(shared.INTERRUPTED) from None


def _source(recipe: str | None, output: Path | None, *, resume: bool) -> str:
    """Where the plan is read from."""
    if recipe is not None:
        return recipe
    if not resume or output is None:
        raise ValueError("recipe: expected the id of a recipe or a file; only with --output DIR --resume is it known.")
    if not (output / "config.toml").is_file():
        raise FileNotFoundError(f"resume: there is no run in {output}; expected the --output of an earlier one.")
    return str(output / "config.toml")


def _dry_run(plan: Plan, device_type: str | None, n_test: int | None, reporter: Reporter) -> None:
    import tomli_w

    from art_lbgat.commands.measuring import measure, parameters
    from art_lbgat.commands.reporting import duration
    from art_lbgat.commands.training import load_plan_data

    data, recipe = load_plan_data(plan), plan.recipe
    experiment = recipe.build(data=data, seed=plan.seed, device_type=device_type, verbose=False)
    counts = dict(zip(["classifier", *(f"guide {i}" for i in range(len(recipe.guides)))],
                      parameters([experiment.classifier, *experiment.guides]), strict=True))  # fmt: skip
    del experiment
    found = measure(plan, data, device_type, n_test)
    reporter.event(
        "plan", configuration=plan.as_toml(), parameters=counts, passes_per_step=str(recipe.cost), **found._asdict()
    )
    reporter.say(tomli_w.dumps(plan.as_toml()))
    reporter.say(f"objective: {recipe.objective}")
    reporter.say("parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    reporter.say(f"attack: {_attack_text(recipe)}")
    reporter.say(f"passes per step: {recipe.cost}")
    reporter.say(f"steps: {found.steps_per_epoch} per epoch, {found.steps_per_epoch * recipe.nb_epochs:,} in all")
    times = {"guides": found.guides, "training": found.training, "validation": found.validation,
             "judging without AutoAttack and page": found.judging}  # fmt: skip
    reporter.say(f"time: about {duration(sum(times.values()))}, by two steps of {found.step:.3g} s")
    for name, value in times.items():
        if value:
            reporter.say(f"  {name}: {duration(value)}")
    if found.memory is not None:
        reporter.say(f"memory: {found.memory / 2**20:,.0f} MiB at its peak")


def _attack_text(recipe: Recipe) -> str:
    """What a training step attacks with, every value resolved."""
    if recipe.attack is None:
        return "none"
    ascent = "KL to the natural prediction" if recipe.attack == "trades" else "cross-entropy"
    norm = "Linf" if recipe.norm == "inf" else "L2"
    return (
        f"{recipe.max_iter} steps of {recipe.step:.4g} in the {norm} ball of eps {recipe.eps:.4g}, ascending the "
        f"{ascent}, model in {recipe.attack_mode} mode"
    )
