"""How to run: the options that every trainer shares, declared once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from typing_extensions import TypedDict

from art_lbgat.checks import check_choice, check_count, check_number
from art_lbgat.engine.cadence import parse_every
from art_lbgat.engine.trackers import Tracker, check_trackers

Keep = Literal["best", "last", "both"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that change nothing about the method.

    :param eps_warmup_epochs: ``eps`` and ``eps_step`` of the training attack rise linearly: in epoch ``e`` (from 1)
        they are ``min(1, e / eps_warmup_epochs)`` of their full size. 0 turns it off.
    :param max_iter_warmup_epochs: The training attack's steps rise: in epoch ``e`` (from 1) it takes
        ``ceil(max_iter * min(1, e / max_iter_warmup_epochs))`` of its length ``eps_step``. 0 turns it off. As in
        curriculum adversarial training (arXiv 1805.04807) and Amata (arXiv 2012.08112); the former raises them by
        accuracy, the latter shortens the later steps too.
    :param warm_start: The training attack starts each sample from its adversarial example of the epoch before,
        projected onto the present ball (ATTA, arXiv 1912.11969), so that few steps suffice, see
        :mod:`art_lbgat.trainers.warm_starts`. Needs data in memory without augmentation.
    :param max_grad_norm: Clip the joint L2 norm of all trained parameters' gradients to this; None does not clip.
    :param awp_gamma: Adversarial weight perturbation (AWP, arXiv 2004.05884): in each step the student's weights are
        moved by ``gamma * ||w||`` per tensor along the gradient of the loss, see :mod:`art_lbgat.engine.awp`; > 0
        (5e-3 as published), None turns it off.
    :param awp_start_epoch: The first epoch (from 1) with AWP.
    :param ema_decay: Average the student's weights and buffers exponentially, in (0, 1), see
        :mod:`art_lbgat.engine.average`; the averaged weights are what is validated and kept. None turns it off.
    :param keep: With validation data, ``"best"`` keeps the weights of the epoch with the highest robust (then natural)
        validation accuracy, ``"last"`` those of the last epoch, ``"both"`` the best in the classifier and the last
        in ``trainer.kept_weights``.
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
    :param tf32: Products of fp32 in TF32 on CUDA while training; False turns TF32 off, whatever the process has set.
    :param on_nonfinite: What to do when NaN or Inf arise in x_adv, logits, loss or gradients, before the weights are
        stepped: ``"raise"`` ends the run and says where they arose; ``"skip"`` leaves the step out (10 in a row end the
        run); ``"rollback"`` goes on from the last checkpoint with half the learning rate, at most three times.
    :param checkpoint_dir: A directory for checkpoints, made if it is not there: a run that was stopped, whatever
        stopped it, goes on from the newest with the same bits (see docs/resume.md). None writes nothing.
    :param checkpoint_every: When they are written: a number of epochs, ``"2 epochs"``, ``"500 steps"``,
        ``"10 minutes"``, or ``"auto"``: as often as costs less than 1 % of the time.
    :param keep_checkpoints: How many are kept; the best weights so far are in each.
    :param resume: ``"auto"`` goes on from the newest checkpoint where there is one; ``"must"`` refuses to start at the
        first step; ``"never"`` refuses a directory with checkpoints; or the path of a checkpoint, or of a directory
        of them, to go on from.
    :param sync_batchnorm: With several processes on CUDA, BatchNorm takes the statistics of the global batch; without,
        those of each process's share, and running statistics are averaged after each step.
    :param trackers: Objects that are told of every epoch, see :class:`~art_lbgat.engine.trackers.Tracker`.
    :param seed: Seed of the run; None draws one from torch's global generator.
    :param verbose: Show a progress bar.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range.
    """

    eps_warmup_epochs: int = 0
    max_iter_warmup_epochs: int = 0
    warm_start: bool = False
    max_grad_norm: float | None = None
    awp_gamma: float | None = None
    awp_start_epoch: int = 10
    ema_decay: float | None = None
    keep: Keep = "best"
    validate_every: int = 1
    patience: int | None = None
    on_collapse: Literal["warn", "stop"] = "warn"
    selection: Literal["validation", "test"] = "validation"
    precision: Precision = "fp32"
    attack_precision: Precision | None = None
    channels_last: bool = False
    compile: bool = False
    tf32: bool = False
    on_nonfinite: Literal["raise", "skip", "rollback"] = "raise"
    checkpoint_dir: str | os.PathLike[str] | None = None
    checkpoint_every: int | str = "auto"
    keep_checkpoints: int = 2
    resume: str | os.PathLike[str] = "auto"
    sync_batchnorm: bool = False
    trackers: Sequence[Tracker] = ()
    seed: int | None = None
    verbose: bool = True

    def __post_init__(self) -> None:
        check_count(self.eps_warmup_epochs, "eps_warmup_epochs", minimum=0)
        check_count(self.max_iter_warmup_epochs, "max_iter_warmup_epochs", minimum=0)
        if self.max_grad_norm is not None:
            check_number(self.max_grad_norm, "max_grad_norm", exclusive=True)
        if self.awp_gamma is not None:
            check_number(self.awp_gamma, "awp_gamma", exclusive=True)
        check_count(self.awp_start_epoch, "awp_start_epoch")
        if self.ema_decay is not None and check_number(self.ema_decay, "ema_decay", exclusive=True) >= 1:
            raise ValueError(f"ema_decay: expected a number in (0, 1), got {self.ema_decay}.")
        check_choice(self.keep, "keep", ("best", "last", "both"))
        check_count(self.validate_every, "validate_every")
        if self.patience is not None:
            check_count(self.patience, "patience")
        check_choice(self.on_collapse, "on_collapse", ("warn", "stop"))
        check_choice(self.selection, "selection", ("validation", "test"))
        if self.seed is not None:
            check_count(self.seed, "seed", minimum=0)
        check_choice(self.precision, "precision", ("fp32", "bf16", "fp16"))
        check_choice(self.attack_precision, "attack_precision", (None, "fp32", "bf16", "fp16"))
        if self.precision == "fp16" and self.awp_gamma is not None:
            raise ValueError("awp_gamma: expected None with precision='fp16', whose loss is scaled; take 'bf16'.")
        self._check_checkpoints()
        check_trackers(self.trackers)
        for name in ("warm_start", "channels_last", "compile", "tf32", "sync_batchnorm", "verbose"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected a bool, got {getattr(self, name)!r}.")

    def _check_checkpoints(self) -> None:
        check_choice(self.on_nonfinite, "on_nonfinite", ("raise", "skip", "rollback"))
        parse_every(self.checkpoint_every)
        check_count(self.keep_checkpoints, "keep_checkpoints")
        for name, value in (("checkpoint_dir", self.checkpoint_dir), ("resume", self.resume)):
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise TypeError(f"{name}: expected a path, got {value!r}.")
        if self.resume in (None, "") or self.checkpoint_dir == "":
            raise ValueError("resume, checkpoint_dir: expected a path (resume: or 'auto', 'must', 'never'), got none.")
        if self.checkpoint_dir is not None:
            return
        if self.on_nonfinite == "rollback":
            raise ValueError("on_nonfinite: 'rollback' goes back to a checkpoint; expected checkpoint_dir, got None.")
        if self.resume != "auto":
            raise ValueError(f"resume: expected checkpoint_dir with resume={str(self.resume)!r}, got None.")

    @property
    def precision_of_attack(self) -> Precision:
        """The precision of the passes of the training attack."""
        return self.attack_precision or self.precision

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

    def steps(self, max_iter: int, epoch: int) -> int:
        """How many of ``max_iter`` steps the training attack takes in ``epoch`` (from 1).

        :param max_iter: The attack's own number of steps.
        :param epoch: The epoch.
        """
        epochs = self.max_iter_warmup_epochs
        return max_iter if epoch >= epochs else -(-max_iter * epoch // epochs)  # exactly the ceiling


class RunFields(TypedDict, total=False):
    """The fields of :class:`RunOptions` as keywords (a test keeps the two equal)."""

    eps_warmup_epochs: int
    max_iter_warmup_epochs: int
    warm_start: bool
    max_grad_norm: float | None
    awp_gamma: float | None
    awp_start_epoch: int
    ema_decay: float | None
    keep: Keep
    validate_every: int
    patience: int | None
    on_collapse: Literal["warn", "stop"]
    selection: Literal["validation", "test"]
    precision: Precision
    attack_precision: Precision | None
    channels_last: bool
    compile: bool
    tf32: bool
    on_nonfinite: Literal["raise", "skip", "rollback"]
    checkpoint_dir: str | os.PathLike[str] | None
    checkpoint_every: int | str
    keep_checkpoints: int
    resume: str | os.PathLike[str]
    sync_batchnorm: bool
    trackers: Sequence[Tracker]
    seed: int | None
    verbose: bool


def run_options(options: RunOptions | None, given: RunFields) -> RunOptions:
    """The options of a trainer, from the object or from keywords.

    :param options: A :class:`RunOptions`, or None.
    :param given: Its fields as keywords.
    :return: The options.
    :raises TypeError: Both given, an object of another type, or a keyword that is no field (with the nearest).
    """
    values: dict[str, Any] = dict(given)
    names = [field.name for field in fields(RunOptions)]
    for name in values:
        if name not in names:
            check_keyword(name, names)
    if options is None:
        return RunOptions(**values)
    if not isinstance(options, RunOptions):
        raise TypeError(f"options: expected a RunOptions, got {type(options).__name__}.")
    if values:
        raise TypeError(f"options: expected either options= or keywords, got both ({', '.join(values)}).")
    return options


def check_keyword(name: str, names: list[str]) -> None:
    """Refuse a keyword that nothing takes, naming the nearest one that exists.

    :param name: The keyword.
    :param names: The keywords that there are.
    :raises TypeError: Always, unless ``name`` is one of ``names``.
    """
    try:
        check_choice(name, "keyword", names)
    except ValueError as error:
        raise TypeError(f"unexpected {error}") from None
