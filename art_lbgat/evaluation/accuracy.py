"""An accuracy with the number of samples that it was measured on, and so with an interval."""

from __future__ import annotations

from typing import NamedTuple

CONFIDENCE = 0.95


class Accuracy(NamedTuple):
    """``correct / n``.

    :param correct: Samples that count as right.
    :param n: Samples judged, at least 1.
    """

    correct: int
    n: int

    @property
    def value(self) -> float:
        """The accuracy, in [0, 1]."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval for the accuracy on the population that the samples were drawn from.

        It covers the choice of samples only: neither the seed of the attack nor the one of training.
        """
        from scipy.stats import binomtest

        found = binomtest(self.correct, self.n).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        """Percent with the interval, such as ``53.20 % [52.22, 54.18]``."""
        low, high = self.interval
        return f"{self.value:.2%} [{100 * low:.2f}, {100 * high:.2f}]".replace("%", " %")
