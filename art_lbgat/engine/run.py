"""One fit, from its first step or from a checkpoint to its last: epochs, validation, checkpoints, interruptions."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import torch
from art.attacks.attack import EvasionAttack
from torch import Tensor, nn
from tqdm.auto import tqdm

from art_lbgat.classifier import TensorView
from art_lbgat.data import Stream
from art_lbgat.engine.adversary import Adversary, validation_adversary
from art_lbgat.engine.averaging import Average
from art_lbgat.engine.checkpoint import Checkpoint, Checkpoints, locked, parse_every
from art_lbgat.engine.history import Meter
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.precision import executions, gradient_scaler
from art_lbgat.engine.schedule import OneCycle
from art_lbgat.engine.signals import Interrupted, Signals, signal_name
from art_lbgat.engine.step import (
    Method,
    Models,
    NonFiniteError,
    Step,
    all_finite,
    clear_gradients,
    describe,
    learning_rate,
)
from art_lbgat.engine.trackers import Trackers
from art_lbgat.engine.validation import NATURAL, ROBUST, Selection, States, Validation, load_unsaved, states, unsaved
from art_lbgat.memory import explained_out_of_memory
from art_lbgat.preserve import (
    Key,
    Modes,
    plain_autograd,
    preserved_modes,
    preserved_randomness,
    random_states,
    seed_everything,
    set_random_states,
)
from art_lbgat.processes import Processes

logger = logging.getLogger(__name__)

_ACCURACIES = ("train_robust_accuracy", "train_natural_accuracy")
_ALL_OF_ONE_LABEL = 0.9  # an epoch of one predicted class that is this often right has one label, or nearly so
_BAR_SECONDS = 0.5  # between two reads of the device, so that the bar costs no synchronisation per step


class _StopRequested(Exception):  # noqa: N818 (no error: the way out of a validation)
    """A signal came while validation data were evaluated."""


@dataclass(eq=False)
class Run:
    """One fit of a student and its guides.

    The classifiers are trained in place; modes, ``requires_grad`` flags and global random generators are unchanged at
    the end, also after an exception. A row per epoch is appended to ``history``.
    """

    method: Method
    student: TensorView
    guides: Sequence[TensorView]
    attack: EvasionAttack | None
    optimizers: Sequence[torch.optim.Optimizer]
    schedule: OneCycle | None
    schedulers: Sequence[tuple[Any, str]]  # and whether each steps at the end of an "epoch" or a "batch"
    options: RunOptions
    processes: Processes
    stream: Stream
    nb_epochs: int
    batch_size: int
    validation: Validation | None
    key: Key
    history: list[dict[str, Any]]
    checkpoints: Checkpoints | None

    def __post_init__(self) -> None:
        trained = [self.student, *(self.guides if self.method.train_guides else [])]
        self._modules: dict[str, nn.Module] = {view.name: view.module for view in trained}
        # Masks of -inf, which attention has, are not found wanting later.
        self._infinite = {f"{n} {k}" for n, m in self._modules.items() for k, b in m.named_buffers() if b.isinf().any()}
        self._selection = Selection(self.options, self._modules, self.student.classifier.nb_classes)
        self._trackers = Trackers(self.options.trackers if self.processes.is_main else ())
        self._every = parse_every(self.options.checkpoint_every)
        self._epoch, self._steps = 1, 0
        self._step_in_epoch, self._seconds, self._meter = 0, 0.0, Meter()
        self._rates: list[float] = []
        self._signal, self._due, self._bar_shown = 0, False, 0.0

    def train(self) -> dict[str, States]:
        """Train until the last epoch or an early stop; returns weights that are not in the classifiers, by kind.

        :raises Interrupted: A signal came; a checkpoint was written.
        :raises NonFiniteError: NaN or Inf arose.
        :raises OSError: A checkpoint could not be written.
        """
        views, device, options = [self.student, *self.guides], self.student.device, self.options
        checkpoints, verbose = self.checkpoints, options.verbose and self.processes.is_main
        total = None if self.stream.steps is None else self.stream.steps * self.nb_epochs
        with (
            locked(checkpoints.root) if checkpoints and self.processes.is_main else nullcontext(),
            _unchanged(views, self.attack) as modes,
            executions([(view.name, view.module) for view in views], options, device) as executed,
            explained_out_of_memory(self.batch_size),
            Signals(enabled=checkpoints is not None) as self._signals,
            tqdm(total=total, desc=self.method.title, unit="step", disable=not verbose) as self._bar,
        ):
            models = Models(self.student, self.guides, self.method, modes, [each.train for each in executed])
            adversary = self._validation_adversary = None
            if self.attack is not None:
                adversary = Adversary(self.attack, self.student, executed[0].attack)
                adversary.check_training(options)
                self._validation_adversary = validation_adversary(adversary, self.student)
            decay = options.ema_decay
            self._average = None if decay is None else Average(self.student.module, decay, options)
            self._modes, self._scaler = modes[0], gradient_scaler(options, device)
            parts = (self.student, adversary, self.optimizers, options, self.processes)
            self._step = Step(self.method, models, *parts, self._agree, self._scaler, self._average)
            try:
                if checkpoints is not None:
                    self._resume(checkpoints)
                self._epochs()
                return self._keep()
            finally:
                clear_gradients(models.trained())

    def _epochs(self) -> None:
        options = {f.name: getattr(self.options, f.name) for f in fields(self.options)}
        start = {"trainer": self.method.title, "fit": self.key.fit, "seed": self.key.seed, "nb_epochs": self.nb_epochs,
                 "steps_per_epoch": self.stream.steps, "epoch": self._epoch, "history": list(self.history),
                 "options": {k: v for k, v in options.items() if k not in ("trackers", "on_step")}}  # fmt: skip
        self._trackers.start(start)
        status = "failed"
        try:
            while not self._ended():
                self._train_epoch()
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            self._trackers.finish(status)

    def _ended(self) -> bool:
        return self._epoch > self.nb_epochs or self._selection.stop is not None

    def _train_epoch(self) -> None:
        row = self._train_steps()
        error = row["loss"] if self.validation is None else None
        if self.validation and (self._epoch % self.options.validate_every == 0 or self._epoch == self.nb_epochs):
            row |= self._validated(self.validation)
            error = 1 - row.get(ROBUST, row[NATURAL])
        self.history.append(row)
        self._trackers.epoch(row, self._steps, self._epoch)
        where = (self.method.title, self._epoch, self.nb_epochs)
        logger.info("%s epoch %d/%d: %s", *where, row)
        for scheduler, interval in self.schedulers:
            if interval == "epoch" and not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step()
            elif interval == "epoch" and error is not None:
                scheduler.step(error)
        if self._selection.stop is not None:
            logger.warning("%s stops after epoch %d of %d: %s.", *where, self._selection.stop)
        for each in self.method.epoch_losses:  # not before validation, where a run may stop within its epoch
            each.end_epoch(self.processes.total)
        self._epoch += 1
        self._step_in_epoch, self._seconds, self._meter = 0, 0.0, Meter()
        self._after_epoch()

    def _train_steps(self) -> dict[str, Any]:
        """One pass over the data, from where the epoch is, and its row of the history."""
        key, seconds_before, first_step = self.key._replace(epoch=self._epoch), self._seconds, self._step_in_epoch
        start, found = time.perf_counter(), random_states()
        if not first_step:
            seed_everything(key.derive("data"))
        for step, batch in enumerate(self.stream.epoch(key, first_step), first_step):
            progress = self._progress(step)
            self._set_rates(progress)
            self._step(batch, key._replace(step=step), self._meter, progress)
            for scheduler, interval in self.schedulers:
                if interval == "batch":
                    scheduler.step()
            self._step_in_epoch, self._seconds = step + 1, seconds_before + time.perf_counter() - start
            self._after_step()
        self._step.settle()
        if first_step and self._step_in_epoch == first_step:
            # The stop came after the last batch of the epoch: undo the random draws of fetching its batches again.
            set_random_states(found)
        if not self._step_in_epoch:
            raise ValueError(f"x: no batch came in epoch {self._epoch}; expected at least one.")
        return self._row()

    def _progress(self, step: int) -> float:
        """The share of the run that is done in the middle of a step of this epoch."""
        steps = self.stream.steps or 1
        return (self._epoch - 1 + min(step + 0.5, steps) / steps) / self.nb_epochs

    def _set_rates(self, progress: float) -> None:
        """The learning rates of a step."""
        if self.schedule is not None:
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.schedule.factor(progress)
        self._rates = [learning_rate(optimizer) for optimizer in self.optimizers]

    def _row(self) -> dict[str, Any]:
        meter = self._meter.summed(self.processes, self.student.device)
        row = {"fit": self.key.fit, "epoch": self._epoch, **meter.means()}
        row |= dict(zip(("learning_rate", "guide_learning_rate"), self._rates, strict=False))
        adversary = self._step.adversary
        if adversary is not None and adversary.eps is not None:
            row["eps"] = adversary.eps * self.options.eps_factor(self._epoch, self._progress(self._step_in_epoch - 1))
        only = meter.only_class()
        if only is not None and all(row.get(name, 0.0) < _ALL_OF_ONE_LABEL for name in _ACCURACIES):
            row["only_class"] = only
            self._warn_of_collapse(only)
        return {**row, "seconds": self._seconds, "images_per_second": meter.samples / self._seconds}

    def _warn_of_collapse(self, only: int) -> None:
        """Say that the model gives one class alone when it does so for the second epoch, or at the end."""
        rows = [row for row in self.history if row["fit"] == self.key.fit]
        before = ["only_class" in row for row in rows]
        rate = max([self._rates[0], *(row["learning_rate"] for row in rows)])
        if self._epoch < self.nb_epochs and before[-2:] not in ([True], [False, True]):
            return  # as a young model may, or said already
        helps = [f"a learning rate below {rate:g}"]
        helps += ["max_grad_norm=5"] if self.options.max_grad_norm == math.inf else []
        warms_up = self.attack is None or self.options.eps_warmup_epochs or self.options.eps_warmup
        helps += [] if warms_up else ["eps_warmup=0.3"]
        helps += ["a larger guide_ce_weight"] if self.method.train_guides else []
        logger.warning(
            "the robust model gave class %d for every sample of epoch %d: it has collapsed to a constant; %s may want "
            "%s.",
            *(only, self._epoch, self.method.title, " or ".join(helps)),
        )

    def _validated(self, validation: Validation) -> dict[str, Any]:
        """Accuracies of the weights that would be kept, and what the selection says of them."""
        parts = (self._modes, self._validation_adversary, self.key.seed, self.processes, self._before_validation_batch)
        try:
            with self._average.applied() if self._average else nullcontext():
                accuracies = validation.accuracies(*parts)
                return {**accuracies, **self._selection.offer(accuracies, self._epoch)}
        except _StopRequested:
            self._interrupt()

    def _before_validation_batch(self) -> None:
        if self.checkpoints is not None:
            (self._signal,) = self.processes.largest([self._signals.number])
            if self._signal:
                raise _StopRequested

    def _agree(self, found: bool) -> bool:
        """One exchange a step: whether any process found NaN or Inf, was signalled, or wants a checkpoint."""
        flags = [int(found), self._signals.number, int(self._wants_checkpoint(epoch_ended=False))]
        any_found, self._signal, due = self.processes.largest(flags)
        self._due = bool(due)
        return bool(any_found)

    def _wants_checkpoint(self, *, epoch_ended: bool) -> bool:
        if self.checkpoints is None or not self.processes.is_main:
            return False
        return self.checkpoints.due(self._every, epoch_ended=epoch_ended)

    def _after_step(self) -> None:
        self._steps += 1
        self._trackers.step(self._meter.means, self._steps, self._epoch, self._step_in_epoch)
        self._bar.update()
        now = time.monotonic()
        if not self._bar.disable and now - self._bar_shown >= _BAR_SECONDS:
            self._bar_shown = now
            shown = {k.removeprefix("train_"): f"{v:.3f}" for k, v in self._meter.means().items()}
            self._bar.set_postfix({"epoch": f"{self._epoch}/{self.nb_epochs}", **shown})
        if self.processes.world == 1:  # alone, a signal that came after `_agree` counts too
            self._signal = self._signals.number
        if self._signal and self.checkpoints is not None:
            self._interrupt()
        if self._due:
            self._write()

    def _after_epoch(self) -> None:
        if self.checkpoints is None:
            self._check_weights()
            return
        flags = [self._signals.number, int(self._wants_checkpoint(epoch_ended=True))]
        self._signal, due = self.processes.largest(flags)
        if due or self._signal or self._ended():
            self._write()
        (again,) = self.processes.largest([self._signals.number])  # it may have come while the last one was written
        self._signal = self._signal or (again if self._ended() else 0)
        if self._signal:
            self._leave()

    def _interrupt(self) -> NoReturn:
        self._write()
        self._leave()

    def _leave(self) -> NoReturn:
        assert self.checkpoints is not None  # noqa: S101 (for the type checker: nothing else looks at signals)
        name, checkpoints = signal_name(self._signal), self.checkpoints
        message = (
            f"{name}: stopped in epoch {self._epoch} of {self.nb_epochs} after {self._step_in_epoch} of its steps; a "
            f"checkpoint is in {checkpoints.root}. The same call, or command, goes on from there."
        )
        if self.processes.is_main:
            where = {"signal": name, "epoch": self._epoch, "step": self._step_in_epoch, "steps": self._steps}
            checkpoints.note_interruption(where)
            logger.warning("%s", message)
        raise Interrupted(message)

    def _write(self) -> None:
        """Write a checkpoint, unless no run could resume from it."""
        checkpoints = self.checkpoints
        assert checkpoints is not None  # noqa: S101 (for the type checker)
        self._step.settle()
        self._check_weights()
        state = self._state()
        self.processes.on_main(lambda: checkpoints.write(self._steps, state, self.options.keep_checkpoints))

    def _check_weights(self) -> None:
        weights = {f"{name} {k}": v for name, m in self._modules.items() for k, v in m.state_dict().items()}
        weights = {k: v for k, v in weights.items() if isinstance(v, Tensor) and k not in self._infinite}
        reals = {k: torch.view_as_real(v) if v.is_complex() else v for k, v in weights.items()}
        floats = {k: v for k, v in reals.items() if v.is_floating_point()}
        if self.processes.largest([not all_finite(list(floats.values()))])[0]:
            raise NonFiniteError(describe(floats, {}, self.optimizers, self._epoch, self._step_in_epoch))

    def _state(self) -> dict[str, Any]:
        """The whole run as plain data and tensors; every process has to ask for it."""
        return {
            "models": {name: dict(module.state_dict()) for name, module in self._modules.items()},
            "unsaved": unsaved(self._modules),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler, _ in self.schedulers],
            "rates": self._rates,
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "average": None if self._average is None else self._average.state(),
            "epoch_losses": [each.state(self.processes.total) for each in self.method.epoch_losses],
            "selection": self._selection.state(),
            "randomness": random_states(),
            "stream": self.stream.state(at_start=not self._step_in_epoch),
            "seed": self.key.seed,
            "fit": self.key.fit,
            "epoch": self._epoch,
            "steps": self._steps,
            "step_in_epoch": self._step_in_epoch,
            "seconds": self._seconds,
            "meter": self._meter.state(self.processes),
            "history": self.history,
        }

    def _load(self, found: Checkpoint) -> None:
        """Put the run where a checkpoint left it."""
        state = found.state
        done = state["epoch"] - 1 + (state["step_in_epoch"] > 0)
        if done > self.nb_epochs:
            raise ValueError(
                f"nb_epochs: {found.path} is in epoch {done} already; expected at least that, got {self.nb_epochs}."
            )
        for name, module in self._modules.items():
            module.load_state_dict(state["models"][name])
        load_unsaved(self._modules, state.get("unsaved", {}))
        schedulers = [scheduler for scheduler, _ in self.schedulers]
        for name, stepped in (("optimizers", self.optimizers), ("schedulers", schedulers)):
            for each, kept in zip(stepped, state[name], strict=True):
                each.load_state_dict(kept)
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"])
        for loss, kept in zip(self.method.epoch_losses, state["epoch_losses"], strict=True):
            loss.load(kept, self.student.device, counted=self.processes.is_main)
        self._selection.load(state["selection"])
        self.key = Key(state["seed"], state["fit"])
        self._epoch, self._steps = state["epoch"], state["steps"]
        self._step_in_epoch, self._seconds, self._rates = state["step_in_epoch"], state["seconds"], state["rates"]
        self._meter.load(state["meter"], self.student.device, counted=self.processes.is_main)
        self.history[:] = state["history"]
        self.stream.load(state["stream"], self.key._replace(epoch=self._epoch))
        set_random_states(state["randomness"])
        self._bar.update(self._steps - self._bar.n)

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Load the checkpoint to resume from, if there is one; keep frozen guides, if there is none."""
        found = self.processes.on_main(lambda: checkpoints.find(self.options.resume))  # first: all fail where it does
        if not self.processes.is_main:
            found = checkpoints.find(self.options.resume)
        self.processes.check_same(
            -1 if found is None else found.step,
            "checkpoint_dir: the processes see different checkpoints; expected a directory that all of them share.",
        )
        if found is not None:
            self._load(found)
            self.processes.on_main(lambda: checkpoints.set_aside_newer(found))
            logger.warning("%s goes on from %s, in epoch %d.", self.method.title, found.path, self._epoch)
        elif self.guides and not self.method.train_guides:  # once, since they never change
            frozen = {f"guide-{i}": dict(guide.module.state_dict()) for i, guide in enumerate(self.guides)}
            self.processes.on_main(lambda: checkpoints.keep_guides(frozen))

    def _keep(self) -> dict[str, States]:
        """Leave the weights that are asked for in the classifiers, and say in the history which they are and why."""
        others: dict[str, States] = {}
        if self._average:
            others["raw"] = states(self._modules)
            self._average.swap()
        last = self._epoch - 1
        kept, reason = self._selection.finish(last)
        for row in self.history[-last:]:
            row["kept"] = row["epoch"] == kept
            row["kept_because"] = reason if row["kept"] else ""
        return others


@contextmanager
def _unchanged(views: Sequence[TensorView], attack: EvasionAttack | None) -> Iterator[list[Modes]]:
    """Everything global is unchanged afterwards; no ambient autocast, no_grad or inference mode inside."""
    with (
        preserved_randomness(),
        preserved_modes([view.module for view in views]) as modes,
        # The wrapper too: ART sets its training flag beside the module's.
        preserved_modes([view.classifier._model for view in views]),
        plain_autograd(views[0].device),
        _attack_unchanged(attack),
    ):
        yield modes


@contextmanager
def _attack_unchanged(attack: EvasionAttack | None) -> Iterator[None]:
    """An ART attack without its progress bar for a while; its own eps afterwards (``random_eps`` draws anew)."""
    verbose = attack is not None and getattr(attack, "verbose", False)
    worker = getattr(attack, "_attack", attack)
    found = {name: getattr(worker, name) for name in ("eps", "eps_step") if hasattr(worker, name)}
    if attack is not None and verbose:
        attack.set_params(verbose=False)
    try:
        yield
    finally:
        for name, value in found.items():
            setattr(worker, name, value)
        if attack is not None and verbose:
            attack.set_params(verbose=verbose)
