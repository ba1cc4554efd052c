"""Where the numbers of a run go while it goes on: any object with three methods, a CSV file, or a service."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from art_lbgat.checks import check_choice
from art_lbgat.files import write_text

logger = logging.getLogger(__name__)

Status = str
SERVICES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


@runtime_checkable
class Tracker(Protocol):
    """What ``trackers=`` takes. Called in the main process only; what it raises ends the run.

    A tracker that has a number as ``every_seconds`` is also told the running means within an epoch, at most so often.
    """

    def start(self, run: Mapping[str, Any]) -> None:
        """The run begins or goes on.

        :param run: ``"trainer"``, ``"fit"`` (its number), ``"seed"``, ``"nb_epochs"``, ``"steps_per_epoch"`` (or None),
            ``"epoch"`` (the next one), ``"options"`` and ``"history"`` (rows of epochs that are done).
        """

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """An epoch has ended, or goes on.

        :param values: The row of ``trainer.history``; within an epoch the means so far, and ``"step_in_epoch"``.
        :param step: Steps of the run so far.
        :param epoch: The epoch, from 1.
        """

    def finish(self, status: Status) -> None:
        """The run ends.

        :param status: ``"finished"``, ``"interrupted"`` or ``"failed"``.
        """


def check_trackers(trackers: Any) -> None:
    """Refuse what is no sequence of trackers.

    :param trackers: What came.
    :raises TypeError: If it is not, or one has not the three methods.
    """
    if isinstance(trackers, str) or not isinstance(trackers, Sequence):
        raise TypeError(f"trackers: expected a list of trackers, got {trackers!r}.")
    for tracker in trackers:
        if isinstance(tracker, type) or not isinstance(tracker, Tracker):
            raise TypeError(f"trackers: expected objects with start, log and finish, got {tracker!r}.")


class CSVTracker:
    """Writes the history as a CSV file, whole after every epoch; one that goes on has each epoch once.

    :param path: The file; its directory is made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path, self._rows = Path(path), []  # type: tuple[Path, list[dict[str, Any]]]

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`Tracker`: begins with the epochs that are done."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = [dict(row) for row in run["history"]]

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`Tracker`."""
        import pandas

        place = (values.get("fit"), values.get("epoch"))  # trained anew where the run went back to a checkpoint
        self._rows = [row for row in self._rows if (row.get("fit"), row.get("epoch")) != place] + [dict(values)]
        write_text(self._path, pandas.DataFrame(self._rows).to_csv(index=False))

    def finish(self, status: Status) -> None:
        """See :class:`Tracker`: everything is written already."""


class ServiceTracker:
    """TensorBoard, Weights & Biases or MLflow, through Accelerate's trackers.

    :param service: ``"tensorboard"``, ``"wandb"`` or ``"mlflow"``.
    :param project: Name of the project (of the folder, for TensorBoard).
    :param directory: Where TensorBoard's and MLflow's files go; the others ignore it.
    :param every_seconds: How often running means are sent within an epoch; None for epochs only.
    :param options: More arguments of the service's own start.
    :raises ValueError: An unknown service.
    :raises ImportError: If the package of the service is not installed.
    """

    def __init__(
        self,
        service: str,
        project: str = "art-lbgat",
        directory: str | os.PathLike[str] = "runs",
        every_seconds: float | None = None,
        **options: Any,
    ) -> None:
        packages = SERVICES[check_choice(service, "service", SERVICES)]
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ImportError(f"service: {service} needs a package: pip install 'art-lbgat[{service}]'.")
        self._service, self._project, self._directory = service, project, Path(directory)
        self._options, self._tracker = options, None  # type: tuple[dict[str, Any], Any]
        self.every_seconds = every_seconds

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # its logger, which its trackers use, wants to know which process this is
        kind: Any = LOGGER_TYPE_TO_CLASS[self._service]
        if kind.requires_logging_directory:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._tracker = kind(self._project, self._directory, **self._options)
        else:
            self._tracker = kind(self._project, **self._options)
        self._tracker.main_process_only = False  # nobody else calls it
        if hasattr(self._tracker, "start"):
            self._tracker.start()
        plain = (bool, int, float, str)
        settings = {**run["options"], **{n: run[n] for n in ("trainer", "fit", "seed", "nb_epochs")}}
        self._tracker.store_init_configuration({k: v for k, v in settings.items() if isinstance(v, plain)})

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`Tracker`: numbers only; those within an epoch under ``running/``."""
        prefix = "running/" if "step_in_epoch" in values else ""
        numbers = {f"{prefix}{k}": float(v) for k, v in values.items() if isinstance(v, (int, float))}
        self._tracker.log({**numbers, "epoch": epoch}, step=step)

    def finish(self, status: Status) -> None:
        """See :class:`Tracker`."""
        if self._tracker is not None:
            self._tracker.finish()


class Trackers:
    """All trackers of a run as one.

    :param trackers: The trackers; none outside the main process.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)
        self._told = {id(each): time.monotonic() for each in trackers}

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        for each in self._trackers:
            each.start(run)

    def epoch(self, row: Mapping[str, Any], step: int, epoch: int) -> None:
        """An epoch has ended.

        :param row: The row of the history.
        :param step: Steps of the run so far.
        :param epoch: The epoch, from 1.
        """
        for each in self._trackers:
            each.log(row, step, epoch)

    def step(self, means: Callable[[], Mapping[str, Any]], step: int, epoch: int, step_in_epoch: int) -> None:
        """A step has ended; told to those whose time has come.

        :param means: Reads the running means from the device.
        :param step: Steps of the run so far.
        :param epoch: The epoch, from 1.
        :param step_in_epoch: Steps of the epoch so far.
        """
        now = time.monotonic()
        for each in self._trackers:
            seconds = getattr(each, "every_seconds", None)
            if seconds is not None and now - self._told[id(each)] >= seconds:
                self._told[id(each)] = now
                each.log({**means(), "step_in_epoch": step_in_epoch}, step, epoch)

    def finish(self, status: Status) -> None:
        """The run ends; a tracker that fails now is a warning, since the run has its own end.

        :param status: ``"finished"``, ``"interrupted"`` or ``"failed"``.
        """
        for each in self._trackers:
            try:
                each.finish(status)
            except Exception as error:  # noqa: PERF203 (each one is told)
                logger.warning("trackers: %s could not finish (%s).", type(each).__name__, error)
