"""The learning-rate schedules of the published recipes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
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
