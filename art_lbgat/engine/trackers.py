"""Where the numbers of a run go while it trains: any object with three methods, a CSV file, or a service."""

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

SERVICES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


@runtime_checkable
class Tracker(Protocol):
    """What ``trackers=`` takes. Called in the main process only; what it raises ends the run.

    A tracker that has a number as ``every_seconds`` is also told the running means within an epoch, at most so often.
    """

    def start(self, run: Mapping[str, Any]) -> None:
        """The run begins or is resumed.

        :param run: ``"trainer"``, ``"fit"`` (its number), ``"seed"``, ``"nb_epochs"``, ``"steps_per_epoch"`` (or None),
            ``"epoch"`` (the next one), ``"options"`` and ``"history"`` (rows of epochs that are done).
        """

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """An epoch has ended, or is running.

        :param values: The row of ``trainer.history``; within an epoch the means so far, and ``"step_in_epoch"``.
        :param step: Steps of the run so far.
        :param epoch: The epoch, from 1.
        """

    def finish(self, status: str) -> None:
        """The run ends.

        :param status: ``"finished"``, ``"interrupted"`` or ``"failed"``.
        """


def check_trackers(trackers: Any) -> None:
    """Refuse what is no sequence of trackers, objects with the three methods."""
    if isinstance(trackers, str) or not isinstance(trackers, Sequence):
        raise TypeError(f"trackers: expected a list of trackers, got {trackers!r}.")
    for tracker in trackers:
        if isinstance(tracker, type) or not isinstance(tracker, Tracker):
            raise TypeError(f"trackers: expected objects with start, log and finish, got {tracker!r}.")


class CSVTracker:
    """Writes the history as a CSV file, whole after every epoch; a run that is resumed has each epoch once.

    :param path: The file; its directory is made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._rows: dict[Any, dict[str, Any]] = {}

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`Tracker`: begins with the epochs that are done."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = {(row.get("fit"), row.get("epoch")): dict(row) for row in run["history"]}

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`Tracker`."""
        import pandas

        self._rows[values.get("fit"), values.get("epoch")] = dict(values)  # anew after a return to a checkpoint
        write_text(self._path, pandas.DataFrame(list(self._rows.values())).to_csv(index=False))

    def finish(self, status: str) -> None:
        """See :class:`Tracker`: everything is written already."""


class ServiceTracker:
    """TensorBoard, Weights & Biases or MLflow.

    :param service: ``"tensorboard"``, ``"wandb"`` or ``"mlflow"``.
    :param project: Name of the project (of the folder, for TensorBoard).
    :param directory: Where TensorBoard's and MLflow's files go; Weights & Biases ignores it.
    :param every_seconds: How often running means are sent within an epoch; None for epochs only.
    :param options: More arguments of the service's own start (``SummaryWriter``, ``wandb.init``, ``mlflow.start_run``).
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
        self._service, self._project, self._directory, self._options = service, project, Path(directory), options
        self._send: Callable[[dict[str, float], int], Any] = lambda *_: None
        self._finish: Callable[[], Any] = lambda: None
        self.every_seconds = every_seconds

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        settings = {**run["options"], **{name: run[name] for name in ("trainer", "fit", "seed", "nb_epochs")}}
        settings = {k: v for k, v in settings.items() if isinstance(v, (bool, int, float, str))}
        if self._service == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer: Any = SummaryWriter(self._directory / self._project, **self._options)
            writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))
            self._send = lambda numbers, step: [writer.add_scalar(k, v, step) for k, v in numbers.items()]
            self._finish = writer.close
        elif self._service == "wandb":
            import wandb

            session = wandb.init(project=self._project, config=settings, **self._options)
            self._send, self._finish = (lambda numbers, step: session.log(numbers, step=step)), session.finish
        else:
            import mlflow

            mlflow.set_tracking_uri(self._directory.resolve().as_uri())
            mlflow.set_experiment(self._project)
            mlflow.start_run(**self._options)
            mlflow.log_params(settings)
            self._send, self._finish = (lambda numbers, step: mlflow.log_metrics(numbers, step)), mlflow.end_run

    def log(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """See :class:`Tracker`: numbers only; those within an epoch under ``running/``."""
        prefix = "running/" if "step_in_epoch" in values else ""
        numbers = {f"{prefix}{k}": float(v) for k, v in values.items() if isinstance(v, (int, float))}
        self._send({**numbers, "epoch": float(epoch)}, step)

    def finish(self, status: str) -> None:
        """See :class:`Tracker`."""
        self._finish()


class Trackers:
    """All trackers of a run as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)
        self._told = {id(each): time.monotonic() for each in trackers}

    def start(self, run: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        for each in self._trackers:
            each.start(run)

    def epoch(self, row: Mapping[str, Any], step: int, epoch: int) -> None:
        """An epoch has ended."""
        for each in self._trackers:
            each.log(row, step, epoch)

    def step(self, means: Callable[[], Mapping[str, Any]], step: int, epoch: int, step_in_epoch: int) -> None:
        """A step has ended; told to those whose time has come."""
        now = time.monotonic()
        for each in self._trackers:
            seconds = getattr(each, "every_seconds", None)
            if seconds is not None and now - self._told[id(each)] >= seconds:
                self._told[id(each)] = now
                each.log({**means(), "step_in_epoch": step_in_epoch}, step, epoch)

    def finish(self, status: str) -> None:
        """The run ends; a tracker that fails now is a warning, since the run has its own end."""
        for each in self._trackers:
            try:
                each.finish(status)
            except Exception as error:  # noqa: PERF203 (each one is told)
                logger.warning("trackers: %s could not finish (%s).", type(each).__name__, error)
