"""``art-lbgat train``: one recipe, in a directory that holds all of it."""

from __future__ import annotations

import difflib
import logging
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_lbgat.cli import output as out
from art_lbgat.cli.judge import choose_device, write_page
from art_lbgat.cli.output import ProgressTracker, Reporter, duration

if TYPE_CHECKING:
    import pandas

    from art_lbgat.data import DataSet
    from art_lbgat.recipes import Experiment, Recipe
    from art_lbgat.runs import Config

_FILES = (".toml", ".yaml", ".yml")  # YAML is refused where it is read
_BY_OPTION = {"seed": "--seed", "resume": "--resume", "checkpoint_dir": "--output", "trackers": "--tracker",
              "verbose": "--quiet"}  # fmt: skip


def find_recipe(name: str) -> Recipe:
    """The recipe of that id, or in that file."""
    from art_lbgat.recipes import RECIPES, Recipe

    if name.lower().endswith(_FILES):
        return Recipe.read(name)
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"recipe: expected an id that `art-lbgat recipes` lists, or a file, got {name!r}{hint}")


def complete_recipe(incomplete: str) -> list[str]:
    """The ids that begin so, for the shell."""
    from art_lbgat.recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """What ``--set field=value`` says of the recipe and of how to run; values as in TOML, text without quotes."""
    from art_lbgat.recipes.recipe import RUN_FIELDS, Recipe, read_value

    allowed = [name for name in (*Recipe.__dataclass_fields__, *RUN_FIELDS) if name != "run"]
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"set: expected field=value, got {text!r}.")
        if name in found:
            raise ValueError(f"set: expected each field once, got {name!r} twice.")
        if name in _BY_OPTION:
            raise TypeError(f"set: {name} has an option of its own, {_BY_OPTION[name]}.")
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`art-lbgat recipes ID` lists them"
            raise TypeError(f"set: there is no field {name!r}; {hint}")
        found[name] = read_value(value, f"set: {name}")
    return found


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Id of a recipe, or a TOML file; with --resume that of the directory.", autocompletion=complete_recipe
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Directory of the run: checkpoints, weights, page.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="field=value of recipe or run; repeatable.")] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs; milestones and warm-up in proportion.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn; 0 if left out.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where the data lies; not needed for the digits.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only so many training images.")] = None,
    guide_weights: Annotated[list[Path] | None, typer.Option(help="Trained weights of a guide; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --output; an error without one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print configuration and cost; write nothing.")] = False,
    n_test: Annotated[int | None, typer.Option(help="Images for natural accuracy and PGD-20; all if left out.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="Test images for AutoAttack; 0 for none.")] = 0,
    report: Annotated[bool, typer.Option(help="Write the page.")] = True,
    tracker: Annotated[str | None, typer.Option(help="Also tell tensorboard, wandb or mlflow.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="Print a JSON object for every epoch.")] = False,
) -> None:
    """Train a recipe, evaluate it, and keep everything in one directory; the same command resumes after a stop.

    With torchrun on several processes: torchrun --nproc-per-node 2 -m art_lbgat train RECIPE --output DIR
    """
    from art_lbgat.engine.signals import Interrupted

    reporter = out.make_reporter(quiet=quiet, json_lines=json_lines)
    given = {"seed": seed, "limit": limit, "root": None if root is None else str(root),
             "guide_weights": tuple(map(str, guide_weights or [])) or None}  # fmt: skip
    if recipe is not None:
        config = make_config(recipe, set_ or [], nb_epochs, **given)
    elif not resume or output is None:
        raise ValueError("recipe: expected the id of a recipe or a file; only with --output DIR --resume is it known.")
    elif not (output / "config.toml").is_file():
        raise FileNotFoundError(f"resume: there is no run in {output}; expected the --output of an earlier one.")
    else:  # as it was asked for first, but for what is said now
        config = make_config(str(output / "config.toml"), set_ or [], nb_epochs, **given)
        n_test, tracker = n_test or config.n_test, tracker or config.tracker
        n_autoattack, report = n_autoattack or config.n_autoattack, report and config.report
    config = replace(config, n_test=n_test, n_autoattack=n_autoattack, report=report, tracker=tracker)
    device_type = choose_device(device)
    if dry_run:
        if output is not None:
            check_free(output, config, resume=resume)
        _dry_run(config, device_type, reporter)
        return
    if output is None:
        raise ValueError("output: expected a directory for the run (--output DIR), or --dry-run.")
    try:
        run_training(config, output, reporter, device_type, resume=resume)
    except Interrupted as interruption:  # which the log has told of
        raise typer.Exit(int(interruption.code or 0)) from None


def make_config(source: str, settings: Sequence[str] = (), nb_epochs: int | None = None, **given: Any) -> Config:
    """The configuration of a recipe's id or file, or of another run's ``config.toml``, with what a command line says.

    ``given`` are fields of :class:`~art_lbgat.runs.Config`; None leaves what the file says, or the default.
    """
    from art_lbgat.runs import Config

    config = Config.read(source) if source.lower().endswith(_FILES) else Config(find_recipe(source))
    recipe = config.recipe if nb_epochs is None else config.recipe.scaled(nb_epochs)
    said = {name: value for name, value in given.items() if value is not None}
    return replace(config, recipe=recipe.override(**read_settings(settings)), **said)


def check_free(output: Path, config: Config, *, resume: bool) -> None:
    """Refuse to mix a run with anything else; an unfinished one of the same configuration resumes by itself."""
    from art_lbgat.runs import CONFIG, RESULTS, Config

    for path in (output, *output.parents):
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise ValueError(f"output: expected a directory, got the file {path}.")
    if not (output / CONFIG).is_file():
        out.refuse_other_things(output)
        if resume:
            raise FileNotFoundError(f"resume: there is no run in {output}; expected the --output of an earlier one.")
        return
    if resume:  # the checkpoint tells what may not differ
        return
    changed = config.differences_from(Config.read(output / CONFIG))
    if changed:
        raise ValueError(
            f"output: {output} holds a run with other settings ({'; '.join(changed)}); expected another "
            "directory, or --resume for what a resumed run may change, such as nb_epochs."
        )
    if (output / RESULTS).exists():
        raise ValueError(
            f"output: {output} holds a finished run of these settings; expected another directory, or --resume "
            "to evaluate it again (with a larger nb_epochs: to continue it)."
        )


def run_training(
    config: Config, output: Path, reporter: Reporter, device_type: str | None = None, *, resume: bool = False
) -> None:
    """Train, evaluate, write; in every process of torchrun, of which the main one alone writes."""
    import torch

    from art_lbgat.files import write_text
    from art_lbgat.processes import is_main_process, join_processes
    from art_lbgat.runs import HISTORY, WEIGHTS, guide_file
    from art_lbgat.weights import save_weights

    start = time.perf_counter()
    gpu = device_type != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    join_processes(device).on_main(lambda: check_free(output, config, resume=resume))
    with signals_as_interrupts(f"the same command resumes what is in {output}"):
        data = config.load_data()
        config = config.for_data(data)
        experiment = _build(config, output, data, reporter, device_type)
        experiment.fit()
        if is_main_process():  # the weights that are kept, and the history with which epoch that is and why
            save_weights(experiment.classifier.model, output / WEIGHTS)
            for index, guide in enumerate(experiment.guides):
                save_weights(guide.model, output / guide_file(index))
            write_text(output / HISTORY, experiment.trainer.history.to_csv(index=False))
        reporter.event("trained", seconds=time.perf_counter() - start)
        _evaluate(config, output, experiment, reporter)
    took = time.perf_counter() - start
    reporter.say(f"{duration(took)}; saved in {output}")
    reporter.event("done", output=str(output), seconds=took)


def _build(config: Config, output: Path, data: DataSet, reporter: Reporter, device_type: str | None) -> Experiment:
    from art_lbgat.engine.trackers import CSVTracker, ServiceTracker
    from art_lbgat.processes import is_main_process
    from art_lbgat.runs import CHECKPOINTS, CONFIG, HISTORY, RESULTS, guide_file

    recipe = config.recipe

    def started(run: Mapping[str, Any]) -> None:
        """The checkpoint, if there is one, takes this configuration: it is that of the directory now."""
        config.write_with(data, output)
        if run["epoch"] <= run["nb_epochs"]:
            (output / RESULTS).unlink(missing_ok=True)

    trackers: list[Any] = [SimpleNamespace(start=started, log=lambda *_: None, finish=lambda *_: None),
                           CSVTracker(output / HISTORY), ProgressTracker(reporter, recipe.objective)]  # fmt: skip
    if config.tracker is not None:
        trackers.append(ServiceTracker(config.tracker, directory=output / "tracker"))
    guide_trackers = [
        [CSVTracker(output / guide_file(i, "-history.csv")), ProgressTracker(reporter, f"guide {i}")]
        for i in range(len(recipe.guides))
    ]
    experiment = recipe.build(
        data=data, seed=config.seed, guide_weights=list(config.guide_weights) or None, device_type=device_type,
        guide_trackers=guide_trackers, trackers=trackers, verbose=reporter.bar, checkpoint_dir=output / CHECKPOINTS,
    )  # fmt: skip
    if is_main_process() and not (output / CONFIG).is_file():
        config.write_with(data, output)
    return experiment


def _evaluate(config: Config, output: Path, experiment: Experiment, reporter: Reporter) -> None:
    """Evaluate a trained experiment and write results and page."""
    from art_lbgat.processes import is_main_process
    from art_lbgat.runs import PAGE, evaluate_images, evaluation_images

    recipe, classifier = config.recipe, experiment.classifier
    how: dict[str, Any] = {"eps": recipe.eps, "norm": recipe.norm, "seed": config.seed}
    x, y = evaluation_images(experiment.data, config.n_test).arrays()
    table = evaluate_images(classifier, x, y, config.n_autoattack, **how)
    if config.report:
        write_page(
            output / PAGE, classifier, x, y, table, name=recipe.objective, title=config.title, data=recipe.data,
            guide=experiment.guides[0] if experiment.guides else None, history=experiment.trainer.history,
            class_names=experiment.data.class_names, config=config.as_toml(), **how,
        )  # fmt: skip
    if is_main_process():
        write_results(output, table)
    reporter.table(f"{config.title}, test images", table)


def write_results(output: Path, table: pandas.DataFrame) -> None:
    """Write the table of an evaluation; the run counts as finished then."""
    from art_lbgat.files import write_text
    from art_lbgat.runs import RESULTS, TABLE

    write_text(output / TABLE, out.markdown(*out.result_cells(table), left=("model", "attack", "flags")))
    write_text(output / RESULTS, table.to_csv(index=False))


@contextmanager
def signals_as_interrupts(message: str) -> Iterator[None]:
    """SIGTERM and SIGUSR1 end the block as Ctrl-C does, wherever training does not handle them itself."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt(message)

    names = (name for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
    found = {number: signal.signal(number, interrupt) for number in (getattr(signal, name) for name in names)}
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _dry_run(config: Config, device_type: str | None, reporter: Reporter) -> None:
    import tomli_w

    recipe, data = config.recipe, config.load_data()
    found = _measure(config, data, device_type)
    counts = found.pop("parameters")
    reporter.event("plan", configuration=config.as_toml(), parameters=counts, passes_per_step=str(recipe.cost), **found)
    attack = "none"
    if recipe.attack is not None:
        goal = "KL to the natural prediction" if recipe.attack == "trades" else "cross-entropy"
        ball = f"{'Linf' if recipe.norm == 'inf' else 'L2'} ball of eps {recipe.eps:.4g}"
        attack = f"{recipe.max_iter} steps of {recipe.step:.4g} in the {ball}, ascending the {goal}, "
        attack += f"model in {recipe.attack_mode} mode"
    times = {name: found[name] for name in ("guides", "training", "validation")}
    times["evaluation without AutoAttack and page"] = found["judging"]
    lines = [
        tomli_w.dumps(config.as_toml()),
        f"objective: {recipe.objective}",
        "parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        f"attack: {attack}",
        f"passes per step: {recipe.cost}",
        f"steps: {found['steps_per_epoch']} per epoch, {found['steps_per_epoch'] * recipe.nb_epochs:,} in all",
        f"time: about {duration(sum(times.values()))}, by two steps of {found['step']:.3g} s",
        *(f"  {name}: {duration(value)}" for name, value in times.items() if value),
    ]
    if found["memory"] is not None:
        lines.append(f"memory: {found['memory'] / 2**20:,.0f} MiB at its peak")
    reporter.say("\n".join(lines))


def _measure(config: Config, data: DataSet, device_type: str | None) -> dict[str, Any]:
    """Seconds and bytes by two steps after two to warm up, with everything on that comes on later in the run."""
    import torch

    from art_lbgat.recipes.build import training_images
    from art_lbgat.runs import evaluate_images

    recipe = config.recipe
    most = recipe.run.most_steps
    short = recipe.override(keep="last", selection="validation", validate_every=1, awp_start_epoch=1,
                            eps_warmup_epochs=0, eps_warmup=0.0, max_iter_schedule=((0.0, most),) if most else (),
                            ema_start=0.0, patience=None, on_collapse="warn")  # fmt: skip
    how: dict[str, Any] = {"data": data, "seed": config.seed, "device_type": device_type, "verbose": False}
    experiment = short.build(guide_weights=list(config.guide_weights) or None, **how)
    cuda = experiment.classifier.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    n, n_test = len(training_images(recipe, data).y), len(data.test_images.y)
    counts = [sum(p.numel() for p in each.model.parameters()) for each in (experiment.classifier, *experiment.guides)]
    step, steps = _seconds_of_step(experiment), -(-n // recipe.batch_size)
    part = data.test_images if recipe.run.selection == "test" else data.validation_images
    x, y = part.subset(range(min(len(part.y), 128))).arrays()
    image = float(evaluate_images(experiment.classifier, x, y, eps=recipe.eps)["seconds"].sum()) / len(x)
    validated = 0 if recipe.run.keep == "last" else -(-recipe.nb_epochs // recipe.run.validate_every)
    guides = 0.0
    for model in () if experiment.guides_trained else recipe.guides:
        own = recipe.for_guide(model).override(keep="last")
        guides += _seconds_of_step(own.build(**how)) * -(-n // own.batch_size) * own.nb_epochs
    return {
        "parameters": {f"guide {i - 1}" if i else "classifier": count for i, count in enumerate(counts)},
        "step": step, "steps_per_epoch": steps, "guides": guides, "training": step * steps * recipe.nb_epochs,
        "validation": image * len(part.y) * validated, "judging": image * min(config.n_test or n_test, n_test),
        "memory": torch.cuda.max_memory_allocated() if cuda else _peak_of_process(),
    }  # fmt: skip


def _seconds_of_step(experiment: Experiment) -> float:
    from art_lbgat.recipes.build import fit_options, training_images

    recipe = experiment.recipe
    images = training_images(recipe, experiment.data)
    few = images.subset(range(min(len(images.y), 2 * recipe.batch_size)))
    logger = logging.getLogger("art_lbgat")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what it warns of is said when the training itself begins
    try:
        experiment.trainer.fit(few, **fit_options(recipe, experiment.data) | {"nb_epochs": 2, "scheduler": None})
    finally:
        logger.setLevel(level)
    return float(experiment.trainer.history["seconds"].iloc[-1]) / max(1, -(-len(few.y) // recipe.batch_size))


def _peak_of_process() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
