"""One fit from its first step, or from a checkpoint, to its last: epochs, validation, checkpoints, interruptions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor, nn

from art_lbgat.data import Stream
from art_lbgat.engine.checkpoint import read_newest
from art_lbgat.engine.checkpointer import Checkpointer, together
from art_lbgat.engine.history import History
from art_lbgat.engine.nonfinite import MAX_ROLLBACKS, ROLLBACK_FACTOR, NonFiniteError, all_finite, describe
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.selection import NATURAL, ROBUST, Selection
from art_lbgat.engine.signals import Interrupted, Signals, signal_name
from art_lbgat.engine.step import learning_rate, scale_learning_rates, step_schedulers
from art_lbgat.engine.trackers import Trackers
from art_lbgat.preserve import Key
from art_lbgat.processes import Processes
from art_lbgat.trainers.adversary import Adversary
from art_lbgat.trainers.epoch import EpochSoFar, train_epoch
from art_lbgat.trainers.loop import Loop
from art_lbgat.trainers.progress import Progress
from art_lbgat.trainers.state import load_run, run_state
from art_lbgat.trainers.validation import Validation

logger = logging.getLogger(__name__)


class _Stopped(Exception):  # noqa: N818 (no error: the way out of a validation)
    """A signal came while validation data were judged."""


@dataclass
class Run:
    """Everything that one fit goes through, and where it is.

    :param title: The method, for messages.
    :param options: How to run.
    :param loop: Trains an epoch.
    :param stream: The data.
    :param key: Seed and number of the fit; the epoch is set here.
    :param nb_epochs: Number of epochs.
    :param modules: The trained modules by name.
    :param schedulers: Stepped at the end of each epoch.
    :param selection: Judges validated epochs.
    :param history: Gets a row per epoch.
    :param validation: What each epoch is judged on, or None.
    :param judge: The attack that judges, or None.
    :param checkpointer: Writes the checkpoints, or None.
    :param signals: Says whether the run is to end.
    :param progress: Shows where the run is.
    :param trackers: Told of every epoch.
    :param epoch: Epochs that are done.
    :param steps: Steps that are done.
    :param rollbacks: How often it went back to a checkpoint.
    :param so_far: The epoch that is under way.
    """

    title: str
    options: RunOptions
    loop: Loop
    stream: Stream
    key: Key
    nb_epochs: int
    modules: Mapping[str, nn.Module]
    schedulers: Sequence[Any]
    selection: Selection
    history: History
    validation: Validation | None
    judge: Adversary | None
    checkpointer: Checkpointer | None
    signals: Signals
    progress: Progress
    trackers: Trackers
    epoch: int = 1
    steps: int = 0
    rollbacks: int = 0
    so_far: EpochSoFar = field(default_factory=EpochSoFar)
    _signal: int = 0
    _due: bool = False

    def __post_init__(self) -> None:
        self.loop.agree = self._agree

    @property
    def processes(self) -> Processes:
        """Who trains on the same batches."""
        return self.loop.processes

    def train(self) -> int:
        """Train until the last epoch or an early stop.

        :return: The last epoch, from 1.
        :raises Interrupted: A signal came; a checkpoint was written.
        :raises NonFiniteError: NaN or Inf arose, and ``on_nonfinite`` had no other way.
        :raises OSError: A checkpoint could not be written.
        """
        self._start_trackers()
        status = "failed"
        try:
            self._train()
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            self.trackers.finish(status)
        return self.epoch - 1

    def _start_trackers(self) -> None:
        options = {f.name: getattr(self.options, f.name) for f in fields(self.options) if f.name != "trackers"}
        self.trackers.start(
            {
                "trainer": self.title,
                "fit": self.key.fit,
                "seed": self.key.seed,
                "nb_epochs": self.nb_epochs,
                "steps_per_epoch": self.stream.steps,
                "epoch": self.epoch,
                "options": options,
                "history": list(self.history.rows),
            }
        )

    def _train(self) -> None:
        while not self._ended():
            try:
                self._epochs()
            except _Stopped:  # noqa: PERF203 (once per interruption)
                self._interrupt()
            except NonFiniteError as error:
                self._roll_back(error)

    def _epochs(self) -> None:
        while not self._ended():
            key = self.key._replace(epoch=self.epoch)
            row = train_epoch(self.loop, self.stream, key, self.progress, self.so_far, self._after_step)
            error = row.get("loss") if self.validation is None else None  # none where every step was left out
            if self.validation and (self.epoch % self.options.validate_every == 0 or self.epoch == self.nb_epochs):
                accuracies = self._judged(self.validation)
                row.update(accuracies)
                error = 1 - accuracies.get(ROBUST, accuracies[NATURAL])
            self.history.rows.append(row)
            self.trackers.epoch(row, self.steps, self.epoch)
            logger.info("%s epoch %d/%d: %s", self.title, self.epoch, self.nb_epochs, row)
            step_schedulers(self.schedulers, error)
            if self.selection.stop is not None:
                reason = (self.title, self.epoch, self.nb_epochs, self.selection.stop)
                logger.warning("%s stops after epoch %d of %d: %s.", *reason)
            self.epoch, self.so_far = self.epoch + 1, EpochSoFar()
            self._after_epoch()

    def _ended(self) -> bool:
        return self.epoch > self.nb_epochs or self.selection.stop is not None

    def _judged(self, validation: Validation) -> dict[str, Any]:
        """Accuracies, and what the selection says of them, with the weights that would be kept in the modules."""
        average = self.loop.average
        with average.applied() if average else nullcontext():
            accuracies = validation.accuracies(
                self.loop.modes[0], self.judge, self.key.seed, self.processes, self._before_validation_batch
            )
            return {**accuracies, **self.selection.offer(accuracies, self.epoch)}

    def _before_validation_batch(self) -> None:
        if self.checkpointer is None:
            return
        (self._signal,) = self.processes.largest([self.signals.number])
        if self._signal:
            raise _Stopped

    def _agree(self, found: bool) -> bool:
        """One exchange a step: whether any process found NaN, was signalled, or wants a checkpoint."""
        due, failure = self._wants_checkpoint(epoch_ended=False)
        flags = [found, self.signals.number, due, failure is not None]
        any_found, self._signal, due_now, failed = self.processes.largest(list(map(int, flags)))
        self._due = bool(due_now)
        self._raise(failure, failed)
        return bool(any_found)

    def _wants_checkpoint(self, *, epoch_ended: bool) -> tuple[bool, OSError | None]:
        if self.checkpointer is None or not self.processes.is_main:
            return False, None
        try:
            return self.checkpointer.due(epoch_ended=epoch_ended), None
        except OSError as error:
            return False, error

    def _raise(self, failure: OSError | None, failed: int) -> None:
        if failure is not None:
            raise failure
        if failed:
            raise RuntimeError("the main process could not write its checkpoint; its own error says why.")

    def _after_step(self) -> None:
        self.steps += 1
        self.trackers.step(self.so_far.meter.means, self.steps, self.epoch, self.so_far.step)
        if self.processes.world == 1:  # nobody to agree with, so it may have come since
            self._signal = self.signals.number
        if self._signal and self.checkpointer is not None:
            self._interrupt()
        if self._due:
            self._write(wait=False)

    def _after_epoch(self) -> None:
        if self.checkpointer is None:
            return
        due, failure = self._wants_checkpoint(epoch_ended=True)
        self._signal, due_now, failed = self.processes.largest([self.signals.number, due, failure is not None])
        self._raise(failure, failed)
        if self._ended():
            self._write(wait=True)
            (self._signal,) = self.processes.largest([self.signals.number])
            if self._signal:  # it came while the last checkpoint was written
                self._leave()
        elif self._signal:
            self._interrupt()
        elif due_now:
            self._write(wait=False)

    def _check_weights(self) -> None:
        """Refuse to keep what no run could go on from.

        :raises NonFiniteError: A weight or buffer is NaN or Inf.
        """
        states = [(name, module.state_dict()) for name, module in self.modules.items()]
        every = {f"{name} {key}": value for name, state in states for key, value in state.items()}
        floats = {key: v for key, v in every.items() if isinstance(v, Tensor) and v.is_floating_point()}
        if not self.processes.largest([not all_finite(list(floats.values()))])[0]:
            return
        rates = [learning_rate(optimizer) for optimizer in self.loop.optimizers]
        raise NonFiniteError(describe(floats, None, {}, rates, self.epoch, self.so_far.step))

    def _write(self, *, wait: bool) -> None:
        self._check_weights()
        checkpointer = self.checkpointer
        parts = {name: part for name, part in run_state(self).items() if part is not None}
        if checkpointer is not None:
            together(self.processes, lambda: checkpointer.write(self.steps, parts, wait=wait))

    def _interrupt(self) -> None:
        assert self.checkpointer is not None  # noqa: S101 (for the type checker: nothing else looks at signals)
        self._write(wait=True)
        self._leave()

    def _leave(self) -> None:
        assert self.checkpointer is not None  # noqa: S101 (for the type checker)
        name = signal_name(self._signal)
        where = {"signal": name, "epoch": self.epoch, "step": self.so_far.step, "steps": self.steps}
        self.checkpointer.note_interruption(where)
        message = (
            f"{name}: stopped in epoch {self.epoch} of {self.nb_epochs} after {self.so_far.step} of its steps; a "
            f"checkpoint is in {self.checkpointer.root}. The same call, or command, goes on from there."
        )
        if self.processes.is_main:
            logger.warning("%s", message)
        raise Interrupted(message)

    def _roll_back(self, error: NonFiniteError) -> None:
        """Go on from the last checkpoint with a lower learning rate, or give up."""
        if self.options.on_nonfinite != "rollback" or self.checkpointer is None:
            raise error
        if self.rollbacks >= MAX_ROLLBACKS:
            raise NonFiniteError(f"{error} It arose again after {MAX_ROLLBACKS} returns to a checkpoint.") from error
        together(self.processes, self.checkpointer.finish)
        found = read_newest(self.checkpointer.root)
        if found is not None:
            self.checkpointer.set_aside_newer(found)
        if found is None:
            raise NonFiniteError(f"{error} There is no checkpoint yet to go back to.") from error
        rollbacks = self.rollbacks + 1
        load_run(self, found, same_process=True)  # with the rates as they were, lowered by the returns before it
        scale_learning_rates(self.loop.optimizers, self.schedulers, ROLLBACK_FACTOR ** (rollbacks - self.rollbacks))
        self.rollbacks = rollbacks
        logger.warning("%s Going on from %s with half the learning rate.", error, found.path)
