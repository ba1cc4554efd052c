"""How to run: the options that every trainer shares, declared once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from art_lbgat.checks import (
    check_choice,
    check_count,
    check_flag,
    check_kind,
    check_number,
    check_optional,
    check_path,
    check_share,
)
from art_lbgat.engine.checkpoint import parse_every
from art_lbgat.engine.history import StepRecord
from art_lbgat.engine.trackers import Tracker, check_trackers

Precision = Literal["fp32", "bf16", "fp16"]
_CHOICES = {
    "keep": ("best", "last"),
    "on_collapse": ("warn", "stop"),
    "selection": ("validation", "test"),
    "precision": ("fp32", "bf16", "fp16"),
    "attack_precision": (None, "fp32", "bf16", "fp16"),
}


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that change nothing about the method.

    :param eps_warmup_epochs: In epoch ``e`` (from 1) the training attack has ``min(1, e / eps_warmup_epochs)`` of its
        ``eps`` and ``eps_step``; 0 turns it off.
    :param eps_warmup: The same at every step: at the share ``s`` of the run ``min(1, s / eps_warmup)`` of them, where
        step ``t`` (from 0) of ``T`` is at ``s = (t + 1/2) / T``; in [0, 1], 0 turns it off. None is the method's own:
        0.3 with ``preset="default"`` of guided trainers, else 0.
    :param max_iter_schedule: Pairs ``(s, max_iter)``, such as ``((0.0, 2), (0.5, 3))``: from the share ``s`` of the run
        on the training attack takes so many steps, in place of its own ``max_iter`` and ``eps_step``, each of
        ``1.25 eps`` for one step, ``2 eps / max_iter`` for two to four, ``2.5 eps / max_iter`` for more; or of a third
        number times ``eps``. The first ``s`` is 0. ``trainer.cost`` is that of the most steps. Empty turns it off.
    :param max_grad_norm: Clip the joint L2 norm of all trained parameters' gradients to this; ``math.inf`` does not
        clip. None is the method's own: 5 with ``preset="default"`` of guided trainers, else ``math.inf``.
    :param awp_gamma: Adversarial weight perturbation (AWP, see :mod:`art_lbgat.engine.perturbation`): in each step the
        student's weights move by ``gamma * ||w||`` per tensor; > 0 (5e-3 as published), None turns it off.
    :param awp_start_epoch: The first epoch (from 1) with AWP.
    :param ema_decay: Average the student's weights exponentially, in (0, 1), see :mod:`art_lbgat.engine.averaging`; the
        averaged weights are what is validated and kept. None turns it off.
    :param ema_start: The share of the run in [0, 1) after which averaging begins; until then the average is the
        weights themselves.
    :param ema_warmup: Average with ``min(ema_decay, (1 + t) / (10 + t))`` after ``t`` steps of averaging.
    :param keep: With validation data, ``"best"`` keeps the weights of the epoch with the highest robust (then natural)
        validation accuracy, ``"last"`` those of the last epoch.
    :param validate_every: Validate after every so many epochs, and always after the last.
    :param patience: Stop when the best validation accuracy is so many validated epochs old; None does not stop.
    :param on_collapse: When robust validation accuracy falls below half of its best (catastrophic overfitting):
        ``"warn"``, or ``"stop"`` the training.
    :param selection: What ``validation_data`` is: ``"validation"``, or ``"test"`` for the labelled reproduction of
        papers that choose the epoch on the test set; the history carries the label.
    :param precision: ``"fp32"``, or autocast to ``"bf16"`` or ``"fp16"`` (CUDA only, with a loss scaler) in forward and
        backward passes; losses, weights, updates and validation stay in fp32.
    :param attack_precision: Of the passes of the training attack; None is the same.
    :param channels_last: Convolutions in channels_last while training; rounds otherwise, faster on most hardware.
    :param compile: Run the models through ``torch.compile`` while training (some ten seconds at the start); rounds
        otherwise. A model that cannot be compiled runs as it is, with one warning.
    :param checkpoint_dir: A directory for checkpoints, made if it is not there: a run that was stopped, whatever
        stopped it, resumes from the newest with the same bits (see docs/resume.md). None writes nothing.
    :param checkpoint_every: A number of epochs, or text such as ``"500 steps"`` or ``"1 epoch, 10 minutes"`` (whichever
        comes first).
    :param keep_checkpoints: How many are kept; the best weights so far are in each.
    :param resume: ``"auto"`` resumes from the newest checkpoint where there is one; ``"must"`` refuses to start at the
        first step; ``"never"`` refuses a directory with checkpoints; or the path of a checkpoint, or of a directory.
    :param trackers: Objects that are called after every epoch, see :class:`~art_lbgat.engine.trackers.Tracker`.
    :param on_step: Called after every training step with a :class:`~art_lbgat.engine.history.StepRecord` of this
        process; the gradients are still in the parameters.
    :param seed: Seed of the run; None draws one from torch's global generator (a ``validation_split`` then takes 0).
    :param verbose: Show a progress bar.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range.
    """

    eps_warmup_epochs: int = 0
    eps_warmup: float | None = None
    max_iter_schedule: Sequence[tuple[float, ...]] = ()
    max_grad_norm: float | None = None
    awp_gamma: float | None = None
    awp_start_epoch: int = 10
    ema_decay: float | None = None
    ema_start: float = 0.0
    ema_warmup: bool = False
    keep: Literal["best", "last"] = "best"
    validate_every: int = 1
    patience: int | None = None
    on_collapse: Literal["warn", "stop"] = "warn"
    selection: Literal["validation", "test"] = "validation"
    precision: Precision = "fp32"
    attack_precision: Precision | None = None
    channels_last: bool = False
    compile: bool = False
    checkpoint_dir: str | os.PathLike[str] | None = None
    checkpoint_every: int | str = "1 epoch, 10 minutes"
    keep_checkpoints: int = 2
    resume: str | os.PathLike[str] = "auto"
    trackers: Sequence[Tracker] = ()
    on_step: Callable[[StepRecord], None] | None = None
    seed: int | None = None
    verbose: bool = True

    def __post_init__(self) -> None:
        for name in ("awp_start_epoch", "validate_every", "keep_checkpoints"):
            check_count(getattr(self, name), name)
        check_count(self.eps_warmup_epochs, "eps_warmup_epochs", minimum=0)
        check_optional(check_count, self.patience, "patience")
        check_optional(check_count, self.seed, "seed", minimum=0)
        check_optional(check_number, self.awp_gamma, "awp_gamma", exclusive=True)
        if self.max_grad_norm != math.inf:
            check_optional(check_number, self.max_grad_norm, "max_grad_norm", exclusive=True)
        check_optional(check_share, self.ema_decay, "ema_decay")
        self._check_shares()
        for name, choices in _CHOICES.items():
            check_choice(getattr(self, name), name, choices)
        if self.precision == "fp16" and self.awp_gamma is not None:
            raise ValueError("awp_gamma: expected None with precision='fp16', whose loss is scaled; take 'bf16'.")
        parse_every(self.checkpoint_every)
        empty = [value for value in (self.resume, self.checkpoint_dir) if isinstance(value, str) and not value]
        if self.resume is None or empty:
            raise ValueError("resume, checkpoint_dir: expected a path (resume: or 'auto', 'must', 'never'), got none.")
        check_optional(check_path, self.checkpoint_dir, "checkpoint_dir")
        check_path(self.resume, "resume")
        if self.checkpoint_dir is None and self.resume != "auto":
            raise ValueError(f"resume: expected checkpoint_dir with resume={str(self.resume)!r}, got None.")
        check_trackers(self.trackers)
        if self.on_step is not None and not callable(self.on_step):
            raise TypeError(f"on_step: expected a function of a StepRecord, got {self.on_step!r}.")
        for name in ("ema_warmup", "channels_last", "compile", "verbose"):
            check_flag(getattr(self, name), name)

    def settled(self, own: Mapping[str, float]) -> RunOptions:
        """The options with numbers where ``eps_warmup`` and ``max_grad_norm`` are None.

        :param own: Those of the method, by name; what it lacks is off.
        """
        values: dict[str, Any] = {"eps_warmup": 0.0, "max_grad_norm": math.inf, **own}
        if self.eps_warmup_epochs:
            values["eps_warmup"] = 0.0
        return replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})

    def perturbs_weights(self, epoch: int) -> bool:
        """Whether AWP is on in ``epoch`` (from 1).

        :param epoch: The epoch.
        """
        return self.awp_gamma is not None and epoch >= self.awp_start_epoch

    def _check_shares(self) -> None:
        """What depends on how much of the run is done."""
        if (check_optional(check_number, self.eps_warmup, "eps_warmup") or 0) > 1:
            raise ValueError(f"eps_warmup: expected a share of the run in [0, 1], got {self.eps_warmup}.")
        if self.eps_warmup and self.eps_warmup_epochs:
            raise ValueError(f"eps_warmup: expected 0 with eps_warmup_epochs={self.eps_warmup_epochs}, got both.")
        if check_number(self.ema_start, "ema_start") >= 1:
            raise ValueError(f"ema_start: expected a share of the run in [0, 1), got {self.ema_start}.")
        rows, name = self.max_iter_schedule, "max_iter_schedule"
        if not _is_sequence(rows) or not all(_is_sequence(row) and len(row) in (2, 3) for row in rows):
            raise TypeError(f"{name}: expected pairs (share of the run, max_iter), got {rows!r}.")
        for share, max_iter, *length in rows:
            check_number(share, name)
            check_count(max_iter, name)
            for each in length:
                check_number(each, name, exclusive=True)
        shares = [row[0] for row in rows]
        if shares and (shares[0] != 0 or shares[-1] >= 1 or shares != sorted(set(shares))):
            raise ValueError(f"{name}: expected shares of the run that rise from 0 and stay below 1, got {shares}.")
        object.__setattr__(self, name, tuple(tuple(row) for row in rows))  # as a file has lists

    @property
    def depends_on_length(self) -> bool:
        """Whether a step depends on how long the run is."""
        return bool(self.eps_warmup or self.max_iter_schedule or self.ema_start)

    @property
    def most_steps(self) -> int | None:
        """The largest ``max_iter`` of ``max_iter_schedule``; None without one."""
        return max((int(row[1]) for row in self.max_iter_schedule), default=None)

    def eps_factor(self, epoch: int, share: float) -> float:
        """The share of the full ``eps`` in ``epoch`` (from 1), at a share of the run.

        :param epoch: The epoch.
        :param share: The share of the run.
        """
        if self.eps_warmup:
            return min(1.0, share / self.eps_warmup)
        return 1.0 if self.eps_warmup_epochs == 0 else min(1.0, epoch / self.eps_warmup_epochs)

    def attack_steps(self, share: float) -> tuple[int, float] | None:
        """How many steps the attack takes and their length in units of ``eps``; None where they are its own.

        :param share: The share of the run.
        """
        if not self.max_iter_schedule:
            return None
        _, max_iter, *length = [row for row in self.max_iter_schedule if row[0] <= share][-1]
        count = int(max_iter)
        return count, length[0] if length else 1.25 if count == 1 else (2.0 if count < 5 else 2.5) / count


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def run_options(options: RunOptions | None, given: Mapping[str, Any]) -> RunOptions:
    """The options of a trainer, from the object or from keywords.

    :raises TypeError: Both given, an object of another type, or a keyword that is no field (with the nearest).
    """
    for name in given:
        check_keyword(name, [field.name for field in fields(RunOptions)])
    if options is None:
        return RunOptions(**given)
    check_kind(options, "options", RunOptions)
    if given:
        raise TypeError(f"options: expected either options= or keywords, got both ({', '.join(given)}).")
    return options


def check_keyword(name: str, names: Iterable[str], what: str = "unexpected keyword") -> None:
    """Refuse a keyword that nothing takes, naming the nearest one that exists."""
    try:
        check_choice(name, what, names)
    except ValueError as error:
        raise TypeError(str(error)) from None
