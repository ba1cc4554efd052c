"""How to run: the options that every trainer shares, declared once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from art_lbgat.checks import check_choice, check_count, check_flag, check_number, check_share
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

    :param eps_warmup_epochs: ``eps`` and ``eps_step`` of the training attack rise linearly: in epoch ``e`` (from 1)
        they are ``min(1, e / eps_warmup_epochs)`` of their full size. 0 turns it off.
    :param max_grad_norm: Clip the joint L2 norm of all trained parameters' gradients to this; None does not clip.
    :param awp_gamma: Adversarial weight perturbation (AWP, arXiv 2004.05884): in each step the student's weights are
        moved by ``gamma * ||w||`` per tensor along the gradient of the loss, see :mod:`art_lbgat.engine.perturbation`;
        > 0 (5e-3 as published), None turns it off.
    :param awp_start_epoch: The first epoch (from 1) with AWP.
    :param ema_decay: Average the student's weights and buffers exponentially, in (0, 1), see
        :mod:`art_lbgat.engine.averaging`; the averaged weights are what is validated and kept. None turns it off.
    :param keep: With validation data, ``"best"`` keeps the weights of the epoch with the highest robust (then natural)
        validation accuracy, ``"last"`` those of the last epoch.
    :param validate_every: Validate after every so many epochs, and always after the last.
    :param patience: Stop when the best validation accuracy is so many validated epochs old; None does not stop.
    :param on_collapse: What is done when robust validation accuracy falls below half of its best (catastrophic
        overfitting): ``"warn"`` says so and goes on, ``"stop"`` ends the training.
    :param selection: What ``validation_data`` is: ``"validation"`` for held-out data, or ``"test"`` for the labelled
        reproduction of papers that choose the epoch on the test set; the history carries the label.
    :param precision: Of the forward and backward passes: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` by autocast (fp16 on
        CUDA only, with a loss scaler). Losses, weights and updates stay in fp32; validation runs in fp32.
    :param attack_precision: Of the passes of the training attack; None is the same.
    :param channels_last: Convolutions in channels_last while training; rounds otherwise, faster on most hardware.
    :param compile: Run the models through ``torch.compile`` while training (some ten seconds at the start); rounds
        otherwise. A model that cannot be compiled runs as it is, with one warning.
    :param checkpoint_dir: A directory for checkpoints, made if it is not there: a run that was stopped, whatever
        stopped it, goes on from the newest with the same bits (see docs/resume.md). None writes nothing.
    :param checkpoint_every: When they are written: a number of epochs, or text such as ``"500 steps"`` or
        ``"1 epoch, 10 minutes"`` (whichever comes first).
    :param keep_checkpoints: How many are kept; the best weights so far are in each.
    :param resume: ``"auto"`` goes on from the newest checkpoint where there is one; ``"must"`` refuses to start at the
        first step; ``"never"`` refuses a directory with checkpoints; or the path of a checkpoint, or of a directory
        of them, to go on from.
    :param trackers: Objects that are called after every epoch, see :class:`~art_lbgat.engine.trackers.Tracker`.
    :param on_step: Called after every training step with a :class:`~art_lbgat.engine.history.StepRecord`: the batch,
        ``x_adv``, logits and loss terms of this process; the gradients are still in the parameters.
    :param seed: Seed of the run; None draws one from torch's global generator.
    :param verbose: Show a progress bar.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range.
    """

    eps_warmup_epochs: int = 0
    max_grad_norm: float | None = None
    awp_gamma: float | None = None
    awp_start_epoch: int = 10
    ema_decay: float | None = None
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
        check_count(self.eps_warmup_epochs, "eps_warmup_epochs", minimum=0)
        for name, minimum in (("patience", 1), ("seed", 0)):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, minimum=minimum)
        for name in ("awp_start_epoch", "validate_every", "keep_checkpoints"):
            check_count(getattr(self, name), name)
        checks = {"max_grad_norm": _check_positive, "awp_gamma": _check_positive, "ema_decay": check_share}
        for name, check in checks.items():
            if getattr(self, name) is not None:
                check(getattr(self, name), name)
        for name, choices in _CHOICES.items():
            check_choice(getattr(self, name), name, choices)
        if self.precision == "fp16" and self.awp_gamma is not None:
            raise ValueError("awp_gamma: expected None with precision='fp16', whose loss is scaled; take 'bf16'.")
        self._check_checkpoints()
        check_trackers(self.trackers)
        if self.on_step is not None and not callable(self.on_step):
            raise TypeError(f"on_step: expected a function of a StepRecord, got {self.on_step!r}.")
        for name in ("channels_last", "compile", "verbose"):
            check_flag(getattr(self, name), name)

    def _check_checkpoints(self) -> None:
        parse_every(self.checkpoint_every)
        for name, value in (("checkpoint_dir", self.checkpoint_dir), ("resume", self.resume)):
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise TypeError(f"{name}: expected a path, got {value!r}.")
        if self.resume in (None, "") or self.checkpoint_dir == "":
            raise ValueError("resume, checkpoint_dir: expected a path (resume: or 'auto', 'must', 'never'), got none.")
        if self.checkpoint_dir is None and self.resume != "auto":
            raise ValueError(f"resume: expected checkpoint_dir with resume={str(self.resume)!r}, got None.")

    def perturbs_weights(self, epoch: int) -> bool:
        """Whether AWP is on in ``epoch`` (from 1).

        :param epoch: The epoch.
        """
        return self.awp_gamma is not None and epoch >= self.awp_start_epoch

    def eps_factor(self, epoch: int) -> float:
        """The share of the full ``eps`` in ``epoch`` (from 1).

        :param epoch: The epoch.
        """
        return 1.0 if self.eps_warmup_epochs == 0 else min(1.0, epoch / self.eps_warmup_epochs)


def run_options(options: RunOptions | None, given: Mapping[str, Any]) -> RunOptions:
    """The options of a trainer, from the object or from keywords.

    :raises TypeError: Both given, an object of another type, or a keyword that is no field (with the nearest).
    """
    names = [field.name for field in fields(RunOptions)]
    for name in given:
        check_keyword(name, names)
    if options is None:
        return RunOptions(**given)
    if not isinstance(options, RunOptions):
        raise TypeError(f"options: expected a RunOptions, got {type(options).__name__}.")
    if given:
        raise TypeError(f"options: expected either options= or keywords, got both ({', '.join(given)}).")
    return options


def check_keyword(name: str, names: list[str]) -> None:
    """Refuse a keyword that nothing takes, naming the nearest one that exists."""
    if name not in names:
        try:
            check_choice(name, "keyword", names)
        except ValueError as error:
            raise TypeError(f"unexpected {error}") from None


def _check_positive(value: Any, name: str) -> float:
    return check_number(value, name, exclusive=True)
