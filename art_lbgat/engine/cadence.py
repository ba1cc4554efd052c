"""When a checkpoint is due: every so many epochs, steps or minutes, or as often as costs less than a hundredth."""

from __future__ import annotations

import re
import time
from typing import Literal, NamedTuple

from art_lbgat.checks import check_count

_FORM = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(epoch|step|minute)s?\s*$")
_SHARE = 0.01  # of the time of training that "auto" spends on writing, at most
_FIRST_SECONDS = 60.0  # before what a checkpoint costs is known, "auto" waits for an epoch to end or for this


class Every(NamedTuple):
    """How often.

    :param amount: How many.
    :param unit: Of what; ``"auto"`` measures what a checkpoint costs.
    """

    amount: float
    unit: Literal["auto", "epoch", "step", "minute"]


def parse_every(value: int | str, name: str = "checkpoint_every") -> Every:
    """``1`` or ``"2 epochs"``, ``"500 steps"``, ``"10 minutes"``, ``"auto"``.

    :param value: A number of epochs, or a number and its unit.
    :param name: The name of the argument.
    :raises TypeError: Neither a whole number nor text.
    :raises ValueError: Text of another form, 0, or part of an epoch or step.
    """
    if not isinstance(value, str):
        return Every(check_count(value, name), "epoch")
    if value == "auto":
        return Every(0, "auto")
    found = _FORM.match(value)
    if not found or float(found[1]) == 0 or (found[2] != "minute" and "." in found[1]):
        raise ValueError(
            f"{name}: expected a number of epochs, or text such as '2 epochs', '500 steps', '10 minutes' or 'auto', "
            f"got {value!r}."
        )
    return Every(float(found[1]), found[2])  # type: ignore[arg-type]


class Cadence:
    """Asked after every step and every epoch whether a checkpoint is due.

    :param every: How often.
    """

    def __init__(self, every: Every) -> None:
        self._every = every
        self._steps = self._epochs = 0
        self._cost: float | None = None
        self._since = time.monotonic()  # not the time of day, which may be set back

    def due(self, *, epoch_ended: bool) -> bool:
        """Whether one is due now.

        :param epoch_ended: Whether an epoch, rather than a step, has just ended.
        """
        self._epochs += epoch_ended
        self._steps += not epoch_ended
        seconds = time.monotonic() - self._since
        if self._every.unit == "epoch":
            return epoch_ended and self._epochs >= self._every.amount
        if self._every.unit == "step":
            return not epoch_ended and self._steps >= self._every.amount
        if self._every.unit == "minute":
            return seconds >= 60 * self._every.amount
        if self._cost is None:
            return epoch_ended or seconds >= _FIRST_SECONDS
        return seconds * _SHARE >= self._cost

    def restart(self) -> None:
        """Count anew: one is being written."""
        self._steps = self._epochs = 0
        self._since = time.monotonic()

    def cost(self, seconds: float) -> None:
        """What the last one cost, in seconds that training stood still or could have used.

        :param seconds: The cost.
        """
        self._cost = seconds
