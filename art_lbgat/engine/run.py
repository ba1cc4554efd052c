"""One fit, from its first step or from a checkpoint to its last: epochs, validation, checkpoints, interruptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
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
from art_lbgat.engine.validation import NATURAL, ROBUST, Selection, States, Validation, states
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
    """A signal came while validation data were judged."""


class Run:
    """One fit of a student and its guides.

    The classifiers are trained in place; modes, ``requires_grad`` flags and global random generators are as found at
    the end, also after an exception. A row per epoch is appended to ``history``.
    """

    def __init__(
        self,
        method: Method,
        student: TensorView,
        guides: Sequence[TensorView],
        attack: EvasionAttack | None,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        options: RunOptions,
        processes: Processes,
        *,
        stream: Stream,
        nb_epochs: int,
        batch_size: int,
        validation: Validation | None,
        key: Key,
        history: list[dict[str, Any]],
        checkpoints: Checkpoints | None,
    ) -> None:
        self.key, self.history = key, history
        self._method, self._student, self._guides, self._attack = method, student, list(guides), attack
        self._optimizers, self._schedulers = optimizers, schedulers
        self._options, self._processes = options, processes
        self._stream, self._nb_epochs, self._batch_size = stream, nb_epochs, batch_size
        self._validation, self._checkpoints = validation, checkpoints
        self._every = parse_every(options.checkpoint_every)
        trained = [student, *(self._guides if method.train_guides else [])]
        self._modules: dict[str, nn.Module] = {view.name: view.module for view in trained}
        self._selection = Selection(options, self._modules, student.classifier.nb_classes)
        self._trackers = Trackers(options.trackers if processes.is_main else ())
        self._epoch, self._steps = 1, 0
        self._step_in_epoch, self._seconds, self._meter = 0, 0.0, Meter()
        self._signal, self._due = 0, False

    def train(self) -> dict[str, States]:
        """Train until the last epoch or an early stop; returns weights that are not in the classifiers, by kind.

        :raises Interrupted: A signal came; a checkpoint was written.
        :raises NonFiniteError: NaN or Inf arose.
        :raises OSError: A checkpoint could not be written.
        """
        views, device = [self._student, *self._guides], self._student.device
        checkpoints, verbose = self._checkpoints, self._options.verbose and self._processes.is_main
        total = None if self._stream.steps is None else self._stream.steps * self._nb_epochs
        with (
            locked(checkpoints.root) if checkpoints and self._processes.is_main else nullcontext(),
            left_as_found(views, self._attack) as modes,
            executions([(view.name, view.module) for view in views], self._options, device) as executed,
            explained_out_of_memory(self._batch_size),
            Signals(enabled=checkpoints is not None) as self._signals,
            tqdm(total=total, desc=self._method.title, unit="step", disable=not verbose) as self._bar,
        ):
            models = Models(self._student, self._guides, self._method, modes, [each.train for each in executed])
            adversary = None if self._attack is None else Adversary(self._attack, self._student, executed[0].attack)
            self._validation_adversary = None if adversary is None else validation_adversary(adversary, self._student)
            self._average = (
                None if self._options.ema_decay is None else Average(self._student.module, self._options.ema_decay)
            )
            self._modes, self._scaler = modes[0], gradient_scaler(self._options, device)
            self._step = Step(
                self._method,
                models,
                self._student,
                adversary,
                self._optimizers,
                self._options,
                self._processes,
                self._agree,
                self._scaler,
                self._average,
            )
            self._bar_shown = 0.0
            try:
                if checkpoints is not None:
                    self._go_on(checkpoints)
                self._epochs()
                return self._keep()
            finally:
                clear_gradients(models.trained())

    def _epochs(self) -> None:
        self._start_trackers()
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
        return self._epoch > self._nb_epochs or self._selection.stop is not None

    def _train_epoch(self) -> None:
        row = self._train_steps()
        error = row["loss"] if self._validation is None else None
        if self._validation and (self._epoch % self._options.validate_every == 0 or self._epoch == self._nb_epochs):
            try:
                judged = self._judged(self._validation)
            except _StopRequested:
                self._interrupt()
            row.update(judged)
            error = 1 - judged.get(ROBUST, judged[NATURAL])
        self.history.append(row)
        self._trackers.epoch(row, self._steps, self._epoch)
        logger.info("%s epoch %d/%d: %s", self._method.title, self._epoch, self._nb_epochs, row)
        step_schedulers(self._schedulers, error)
        if self._selection.stop is not None:
            reason = (self._method.title, self._epoch, self._nb_epochs, self._selection.stop)
            logger.warning("%s stops after epoch %d of %d: %s.", *reason)
        self._epoch += 1
        self._step_in_epoch, self._seconds, self._meter = 0, 0.0, Meter()
        self._after_epoch()

    def _train_steps(self) -> dict[str, Any]:
        """One pass over the data, from where the epoch is, and its row of the history."""
        key, seconds_before, first_step = self.key._replace(epoch=self._epoch), self._seconds, self._step_in_epoch
        start, found = time.perf_counter(), random_states()
        rates = [learning_rate(optimizer) for optimizer in self._optimizers]
        if not first_step:
            seed_everything(key.derive("data"))
        for step, batch in enumerate(self._stream.epoch(key, first_step), first_step):
            self._step(batch, key._replace(step=step), self._meter)
            self._step_in_epoch, self._seconds = step + 1, seconds_before + time.perf_counter() - start
            self._after_step()
        if first_step and self._step_in_epoch == first_step:
            # The stop came after the last batch of the epoch: undo the random draws of fetching its batches again.
            set_random_states(found)
        if not self._step_in_epoch:
            raise ValueError(f"x: no batch came in epoch {self._epoch}; expected at least one.")
        return self._row(rates)

    def _row(self, rates: Sequence[float]) -> dict[str, Any]:
        meter = self._meter.summed(self._processes, self._student.device)
        row = {"fit": self.key.fit, "epoch": self._epoch, **meter.means(), "learning_rate": rates[0]}
        if len(rates) > 1:
            row["guide_learning_rate"] = rates[1]
        adversary = self._step.adversary
        if adversary is not None and adversary.eps is not None:
            row["eps"] = adversary.eps * self._options.eps_factor(self._epoch)
        only = meter.only_class()
        if only is not None and all(row.get(name, 0.0) < _ALL_OF_ONE_LABEL for name in _ACCURACIES):
            row["only_class"] = only
            logger.warning(
                "the robust model gave class %d for every sample of epoch %d: it has collapsed to a constant; "
                "max_grad_norm=1.0, eps_warmup_epochs or a lower learning rate may help.",
                only,
                self._epoch,
            )
        return {**row, "seconds": self._seconds, "images_per_second": meter.samples / self._seconds}

    def _judged(self, validation: Validation) -> dict[str, Any]:
        """Accuracies, and what the selection says of them, with the weights that would be kept in the modules."""
        with self._average.applied() if self._average else nullcontext():
            accuracies = validation.accuracies(
                self._modes, self._validation_adversary, self.key.seed, self._processes, self._before_validation_batch
            )
            return {**accuracies, **self._selection.offer(accuracies, self._epoch)}

    def _before_validation_batch(self) -> None:
        if self._checkpoints is not None:
            (self._signal,) = self._processes.largest([self._signals.number])
            if self._signal:
                raise _StopRequested

    def _agree(self, found: bool) -> bool:
        """One exchange a step: whether any process found NaN or Inf, was signalled, or wants a checkpoint."""
        flags = [int(found), self._signals.number, int(self._wants_checkpoint(epoch_ended=False))]
        any_found, self._signal, due = self._processes.largest(flags)
        self._due = bool(due)
        return bool(any_found)

    def _wants_checkpoint(self, *, epoch_ended: bool) -> bool:
        if self._checkpoints is None or not self._processes.is_main:
            return False
        return self._checkpoints.due(self._every, epoch_ended=epoch_ended)

    def _after_step(self) -> None:
        self._steps += 1
        self._trackers.step(self._meter.means, self._steps, self._epoch, self._step_in_epoch)
        self._bar.update()
        now = time.monotonic()
        if not self._bar.disable and now - self._bar_shown >= _BAR_SECONDS:
            self._bar_shown = now
            shown = {k.removeprefix("train_"): f"{v:.3f}" for k, v in self._meter.means().items()}
            self._bar.set_postfix({"epoch": f"{self._epoch}/{self._nb_epochs}", **shown})
        if self._processes.world == 1:  # alone, a signal that came after `_agree` counts too
            self._signal = self._signals.number
        if self._signal and self._checkpoints is not None:
            self._interrupt()
        if self._due:
            self._write()

    def _after_epoch(self) -> None:
        if self._checkpoints is None:
            return
        flags = [self._signals.number, int(self._wants_checkpoint(epoch_ended=True))]
        self._signal, due = self._processes.largest(flags)
        if due or self._signal or self._ended():
            self._write()
        (again,) = self._processes.largest([self._signals.number])  # it may have come while the last one was written
        self._signal = self._signal or (again if self._ended() else 0)
        if self._signal:
            self._leave()

    def _interrupt(self) -> NoReturn:
        self._write()
        self._leave()

    def _leave(self) -> NoReturn:
        assert self._checkpoints is not None  # noqa: S101 (for the type checker: nothing else looks at signals)
        name, checkpoints = signal_name(self._signal), self._checkpoints
        message = (
            f"{name}: stopped in epoch {self._epoch} of {self._nb_epochs} after {self._step_in_epoch} of its steps; a "
            f"checkpoint is in {checkpoints.root}. The same call, or command, goes on from there."
        )
        if self._processes.is_main:
            where = {"signal": name, "epoch": self._epoch, "step": self._step_in_epoch, "steps": self._steps}
            checkpoints.note_interruption(where)
            logger.warning("%s", message)
        raise Interrupted(message)

    def _write(self) -> None:
        checkpoints = self._checkpoints
        assert checkpoints is not None  # noqa: S101 (for the type checker)
        self._check_weights()
        state = self._state()
        self._processes.main_does(lambda: checkpoints.write(self._steps, state, self._options.keep_checkpoints))

    def _check_weights(self) -> None:
        """Refuse to keep what no run could go on from."""
        named = [(name, module.state_dict()) for name, module in self._modules.items()]
        every = {f"{name} {key}": value for name, state in named for key, value in state.items()}
        floats = {key: v for key, v in every.items() if isinstance(v, Tensor) and v.is_floating_point()}
        if self._processes.largest([not all_finite(list(floats.values()))])[0]:
            raise NonFiniteError(describe(floats, {}, self._optimizers, self._epoch, self._step_in_epoch))

    def _state(self) -> dict[str, Any]:
        """The whole run as plain data and tensors; every process has to ask for it."""
        return {
            "models": {name: dict(module.state_dict()) for name, module in self._modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "average": None if self._average is None else self._average.state(),
            "selection": self._selection.state(),
            "randomness": random_states(),
            "stream": self._stream.state(at_start=not self._step_in_epoch),
            "seed": self.key.seed,
            "fit": self.key.fit,
            "epoch": self._epoch,
            "steps": self._steps,
            "step_in_epoch": self._step_in_epoch,
            "seconds": self._seconds,
            "meter": self._meter.state(self._processes),
            "history": self.history,
        }

    def _load(self, found: Checkpoint) -> None:
        """Put the run where a checkpoint left it."""
        state = found.state
        done = state["epoch"] - 1 + (state["step_in_epoch"] > 0)
        if done > self._nb_epochs:
            raise ValueError(
                f"nb_epochs: {found.path} is in epoch {done} already; expected at least that, got {self._nb_epochs}."
            )
        for name, module in self._modules.items():
            module.load_state_dict(state["models"][name])
        for each, kept in zip(
            [*self._optimizers, *self._schedulers], [*state["optimizers"], *state["schedulers"]], strict=True
        ):
            each.load_state_dict(kept)
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"])
        self._selection.load(state["selection"])
        self.key = Key(state["seed"], state["fit"])
        self._epoch, self._steps = state["epoch"], state["steps"]
        self._step_in_epoch, self._seconds = state["step_in_epoch"], state["seconds"]
        self._meter.load(state["meter"], self._student.device, counted=self._processes.is_main)
        self.history[:] = state["history"]
        self._stream.load(state["stream"], self.key._replace(epoch=self._epoch))
        set_random_states(state["randomness"])
        self._bar.update(self._steps - self._bar.n)

    def _go_on(self, checkpoints: Checkpoints) -> None:
        """Put the run where its checkpoint left it, if there is one."""
        found: Checkpoint | None = None

        def look() -> None:
            nonlocal found
            found = checkpoints.find(self._options.resume)

        self._processes.main_does(look)  # first, so that all fail where it does
        if not self._processes.is_main:
            look()
        self._processes.check_same(
            -1 if found is None else found.step,
            "checkpoint_dir: the processes see different checkpoints; expected a directory that all of them share.",
        )
        if found is not None:
            self._load(found)
            self._processes.main_does(lambda: checkpoints.went_on_from(found))
            logger.warning("%s goes on from %s, in epoch %d.", self._method.title, found.path, self._epoch)
        elif self._guides and not self._method.train_guides:  # once, since they never change
            frozen = {f"guide-{i}": dict(guide.module.state_dict()) for i, guide in enumerate(self._guides)}
            self._processes.main_does(lambda: checkpoints.keep_guides(frozen))

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

    def _start_trackers(self) -> None:
        options = {f.name: getattr(self._options, f.name) for f in fields(self._options)}
        self._trackers.start(
            {
                "trainer": self._method.title,
                "fit": self.key.fit,
                "seed": self.key.seed,
                "nb_epochs": self._nb_epochs,
                "steps_per_epoch": self._stream.steps,
                "epoch": self._epoch,
                "options": {name: value for name, value in options.items() if name not in ("trackers", "on_step")},
                "history": list(self.history),
            }
        )


def step_schedulers(schedulers: Sequence[Any], error: float | None) -> None:
    """Step each scheduler at the end of an epoch; a plateau is measured on ``error``, if there is one."""
    for scheduler in schedulers:
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step()
        elif error is not None:
            scheduler.step(error)


@contextmanager
def left_as_found(views: Sequence[TensorView], attack: EvasionAttack | None) -> Iterator[list[Modes]]:
    """Everything global as found afterwards; no ambient autocast, no_grad or inference mode inside."""
    with ExitStack() as stack:
        stack.enter_context(preserved_randomness())
        modes = stack.enter_context(preserved_modes([view.module for view in views]))
        # The wrapper too: ART sets its training flag beside the module's.
        stack.enter_context(preserved_modes([view.classifier._model for view in views]))
        stack.enter_context(plain_autograd(views[0].device))
        stack.enter_context(_attack_as_found(attack))
        yield modes


@contextmanager
def _attack_as_found(attack: EvasionAttack | None) -> Iterator[None]:
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
