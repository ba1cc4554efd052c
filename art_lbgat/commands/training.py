"""One training from its plan to its files: checkpoints, history, weights, results, page."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from art_lbgat.commands.judging import Judging, images, judge, write_page
from art_lbgat.commands.plan import Plan
from art_lbgat.commands.reporting import Reporter, duration
from art_lbgat.commands.run_directory import RunDirectory
from art_lbgat.commands.shared import typed
from art_lbgat.data import DataSet
from art_lbgat.engine.checkpointer import together
from art_lbgat.engine.trackers import CSVTracker, ServiceTracker, Tracker
from art_lbgat.files import write_text
from art_lbgat.processes import is_main_process, join_processes
from art_lbgat.recipes.experiment import Experiment, guide_recipe, load_recipe_data
from art_lbgat.recipes.files import without_null
from art_lbgat.weights import save_weights

_GOES_ON = "the same command goes on from what is in {}"


@dataclass(frozen=True)
class Request:
    """What is asked for beside the plan.

    :param plan: The plan.
    :param directory: Where everything goes.
    :param judging: How the result is judged.
    :param device_type: Where it runs.
    :param resume: Whether there has to be a run that goes on.
    :param page: Whether the page is written.
    :param service: A service that is told of the run, or None.
    """

    plan: Plan
    directory: RunDirectory
    judging: Judging
    device_type: str | None = None
    resume: bool = False
    page: bool = True
    service: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What ``--resume`` alone has to know again, as it is noted beside the configuration."""
        judging = self.judging
        found = {"n_test": judging.n, "n_autoattack": judging.n_autoattack, "report": self.page}
        return without_null({**found, "tracker": self.service})


@dataclass
class _OnStart:
    """A tracker that does something when a run begins, its checkpoint accepted."""

    action: Callable[[Mapping[str, Any]], None]
    status: str = field(default="", init=False)

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self.action(run)

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""

    def finish(self, status: str) -> None:
        """See :class:`~art_lbgat.engine.trackers.Tracker`."""
        self.status = status


def data_facts(data: DataSet) -> dict[str, Any]:
    """What a classifier of these data has to know, as it is noted beside its configuration.

    :param data: The data.
    """
    named = {"class_names": list(data.class_names)} if data.class_names else {}
    return {"input_shape": list(data.input_shape), "nb_classes": data.nb_classes, **named}


def load_plan_data(plan: Plan) -> DataSet:
    """The data of a plan.

    :param plan: The plan.
    :raises FileNotFoundError: If it is not there, with what to put where.
    :raises ValueError: Without the root that it needs.
    """
    return load_recipe_data(plan.recipe, plan.root, seed=plan.seed, limit=plan.limit)


def run_training(request: Request, reporter: Reporter) -> None:
    """Train, judge, write; in every process of torchrun, of which the main one alone writes.

    :param request: What is asked for.
    :param reporter: Told of it.
    :raises ValueError: See :meth:`RunDirectory.check_free` and the trainers.
    :raises art_lbgat.engine.signals.Interrupted: A signal came in training; a checkpoint was written.
    :raises KeyboardInterrupt: It came at another time.
    """
    plan, directory, start = request.plan, request.directory, time.perf_counter()
    processes = join_processes(_device(request.device_type))
    together(processes, lambda: directory.check_free(plan, resume=request.resume))
    with _signals_as_interrupts(_GOES_ON.format(directory.path)), reporter:
        data = load_plan_data(plan)
        experiment = _build(request, data, reporter)
        experiment.fit()
        if is_main_process():
            save(experiment, directory)
        reporter.event("trained", seconds=time.perf_counter() - start)
        finish(request, experiment, reporter)
    took = time.perf_counter() - start
    reporter.say(f"{duration(took)}; saved in {directory.path}")
    reporter.event("done", output=str(directory.path), seconds=took)


def _device(device_type: str | None) -> torch.device:
    """Where the classifiers will be."""
    gpu = device_type != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


def _build(request: Request, data: DataSet, reporter: Reporter) -> Experiment:
    plan, directory = request.plan, request.directory
    recipe, facts = plan.recipe, {**data_facts(data), **request.options}

    def started(run: Mapping[str, Any]) -> None:
        """The checkpoint, if there is one, takes this plan: it is that of the directory now."""
        directory.write_plan(plan, facts)
        if run["epoch"] <= run["nb_epochs"]:
            directory.results.unlink(missing_ok=True)

    frozen = range(len(recipe.guides)) if recipe.method == "bgat" and not plan.guide_weights else ()
    guide_size = guide_recipe(recipe).batch_size if frozen else 0
    guide_trackers: list[list[Tracker]] = [
        [CSVTracker(directory.guide_history(i)), *reporter.trackers(f"guide {i}", guide_size)] for i in frozen
    ]
    trackers: list[Tracker] = [_OnStart(started), CSVTracker(directory.history)]
    trackers += reporter.trackers(recipe.objective, recipe.batch_size)
    if request.service is not None:
        trackers.append(ServiceTracker(request.service, directory=directory.path / "tracker"))
    experiment = recipe.build(
        data=data,
        seed=plan.seed,
        guide_weights=list(plan.guide_weights) or None,
        device_type=request.device_type,
        verbose=False,
        run={**plan.run, "checkpoint_dir": directory.checkpoints, "trackers": trackers},
        guide_trackers=guide_trackers,
    )
    if is_main_process() and not directory.exists():
        directory.write_plan(plan, facts)
    return experiment


def save(experiment: Experiment, directory: RunDirectory) -> None:
    """The weights that are kept, those of the guides, and the history with which epoch that is and why.

    :param experiment: The trained experiment.
    :param directory: Where to.
    """
    save_weights(experiment.classifier.model, directory.weights)
    for index, guide in enumerate(experiment.guides):
        save_weights(guide.model, directory.guide_weights(index))
    write_text(directory.history, experiment.trainer.history.to_csv(index=False))


def finish(request: Request, experiment: Experiment, reporter: Reporter) -> None:
    """Judge a trained experiment and write results and page.

    :param request: What was asked for.
    :param experiment: The trained experiment.
    :param reporter: Who is told.
    """
    directory, recipe, judging = request.directory, request.plan.recipe, request.judging
    main = is_main_process()
    x, y = images(experiment.data, judging)
    table = judge(experiment.classifier, x, y, judging)
    if request.page:
        write_page(
            directory.page,
            experiment.classifier,
            x,
            y,
            judging,
            table,
            name=recipe.objective,
            title=f"{recipe.objective} on {request.plan.data_title}",
            is_main=main,
            data=recipe.data,
            guide=experiment.guides[0] if experiment.guides else None,
            history=experiment.trainer.history,
            class_names=experiment.data.class_names,
            config=request.plan.as_toml(),
            commands=[typed()],
        )
    if main:
        directory.write_results(table)
    reporter.table(f"{recipe.objective} on {request.plan.data_title}, {judging.part} images", table)


@contextmanager
def _signals_as_interrupts(message: str) -> Iterator[None]:
    """SIGTERM and SIGUSR1 end the block as Ctrl-C does, wherever training does not see to them itself.

    :param message: What the interruption says.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        """As Ctrl-C."""
        raise KeyboardInterrupt(message)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    found = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
