"""Learning-rate schedules: steps at epochs, as published, and curves over the whole run, which change at every step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from art_lbgat.checks import check_count, check_kind, check_number


@dataclass(frozen=True)
class StepSchedule:
    """``lr(epoch) = lr * gamma ** (milestones passed)``, the first epoch gentler by ``first_epoch_factor``.

    Pass it as ``scheduler=`` to ``fit``, which makes one scheduler for each trained optimizer. The recipe of LBGAT is
    ``StepSchedule((75, 90), first_epoch_factor=0.2)``: 0.02 in epoch 1, 0.1 up to 75, 0.01 up to 90, then 0.001.

    :param milestones: Epochs (from 1, rising) after which the learning rate falls.
    :param gamma: Factor at each milestone, in (0, 1].
    :param first_epoch_factor: Factor in the first epoch, > 0.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range, or milestones that do not rise.
    """

    milestones: Sequence[int] = ()
    gamma: float = 0.1
    first_epoch_factor: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.milestones, (str, bytes)) or not isinstance(self.milestones, Sequence):
            raise TypeError(f"milestones: expected a sequence of epochs, got {self.milestones!r}.")
        for milestone in self.milestones:
            check_count(milestone, "milestones")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: expected rising epochs, got {tuple(self.milestones)}.")
        if check_number(self.gamma, "gamma", exclusive=True) > 1:
            raise ValueError(f"gamma: expected a number in (0, 1], got {self.gamma}.")
        check_number(self.first_epoch_factor, "first_epoch_factor", exclusive=True)

    def factor(self, epoch: int) -> float:
        """The share of the full learning rate in ``epoch`` (from 1).

        :param epoch: The epoch.
        """
        check_count(epoch, "epoch")
        first = self.first_epoch_factor if epoch == 1 else 1.0
        return first * self.gamma ** bisect_right(list(self.milestones), epoch - 1)

    def __call__(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """A scheduler of ``optimizer``, which sets the rate of the first epoch at once."""
        check_kind(optimizer, "optimizer", torch.optim.Optimizer)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda passed: self.factor(passed + 1))


@dataclass(frozen=True)
class OneCycle:
    """The learning rate as a function of the share of the run: linearly up to the peak, then linearly down.

    ``factor(s) = s / warmup`` before ``warmup``, then ``final + (1 - final) (1 - s) / (1 - warmup)``, times the
    learning rate of each optimizer, which is the peak. Step ``t`` (from 0) of ``T`` is at ``s = (t + 1/2) / T``, so
    that the rate changes at every step, is never 0, and fits any number of epochs. Source: arXiv 1803.09820; the
    "cyclic" rate of Fast-AT.

    :param warmup: Share of the run up to the peak, in [0, 1).
    :param final: Share of the peak at the end, in [0, 1].
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range.
    """

    warmup: float = 0.25
    final: float = 0.0

    def __post_init__(self) -> None:
        if check_number(self.warmup, "warmup") >= 1:
            raise ValueError(f"warmup: expected a share of the run in [0, 1), got {self.warmup}.")
        if check_number(self.final, "final") > 1:
            raise ValueError(f"final: expected a share of the peak in [0, 1], got {self.final}.")

    def factor(self, share: float) -> float:
        """The share of the peak at a share of the run.

        :param share: In [0, 1].
        """
        if share < self.warmup:
            return share / self.warmup
        return self.final + (1 - self.final) * self._fallen((1 - share) / (1 - self.warmup))

    def _fallen(self, left: float) -> float:
        return left


@dataclass(frozen=True)
class Cosine(OneCycle):
    """As :class:`OneCycle`, but down on half a cosine, and without a warm-up unless one is asked for.

    ``factor(s) = final + (1 - final) (1 + cos(pi (s - warmup) / (1 - warmup))) / 2`` after the warm-up (arXiv
    1608.03983).

    :param warmup: As in :class:`OneCycle`.
    :param final: As in :class:`OneCycle`.
    """

    warmup: float = 0.0

    def _fallen(self, left: float) -> float:
        return (1 - math.cos(math.pi * left)) / 2


def _steps(nb_epochs: int) -> StepSchedule:
    return StepSchedule(tuple(sorted({max(1, round(share * nb_epochs)) for share in (0.75, 0.9)})))


#: What a name of ``scheduler=`` stands for, in a run of so many epochs; ``"step"`` falls after 75 % and 90 % of them.
SCHEDULES: dict[str, Callable[[int], StepSchedule | OneCycle]] = {
    "one-cycle": lambda _: OneCycle(),
    "cosine": lambda _: Cosine(),
    "step": _steps,
}
