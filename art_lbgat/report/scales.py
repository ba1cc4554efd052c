"""Axes: from values to pixels, with round ticks whose labels do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

CHARACTER = 8.4  # width of a digit at the largest font size of a chart, in its units; a little more than any has
_GAP = 10.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Tick(NamedTuple):
    """A mark on an axis.

    :param at: Where, in pixels.
    :param label: The number.
    """

    at: float
    label: str


class Axis(NamedTuple):
    """``pixel = start + (value - low) / (high - low) * (end - start)``.

    :param low: Value at ``start``.
    :param high: Value at ``end``, greater than ``low``.
    :param start: First pixel.
    :param end: Last pixel.
    :param ticks: The marks, in rising order of their values.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """The pixel of a value, kept on the axis, to a tenth.

        :param value: In the units of the data.
        """
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def make_axis(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    whole: bool = False,
    tight: bool = False,
) -> Axis:
    """An axis that shows all values.

    :param values: What is to be shown; NaN and Inf are left out.
    :param start: First pixel.
    :param end: Last pixel; ``start > end`` is an axis that rises upwards.
    :param bounds: Values beyond which there is nothing, such as (0, 100) for percent.
    :param whole: Whether only whole numbers are marked.
    :param tight: Whether the axis ends at the first and last value; else at marks.
    """
    finite = [float(value) for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low == high:
        pad = max(abs(low) * 0.1, 1.0 if whole else 0.5)
        low, high = max(low - pad, bounds[0]), min(high + pad, bounds[1])
    for count in (7, 6, 5, 4, 3, 2):
        step = _nice_step((high - low) / count, whole)
        first, last = (low, high) if tight else (math.floor(low / step) * step, math.ceil(high / step) * step)
        at = [k * step for k in range(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1)]
        labels = [format_tick(value, step) for value in at]
        needed = max(map(len, labels), default=0) * CHARACTER + _GAP if start < end else 2 * CHARACTER
        if abs(end - start) * step / (last - first) >= needed:
            break
    axis = Axis(first, last, start, end, ())
    ticks = tuple(Tick(axis.at(value), label) for value, label in zip(at, labels, strict=True))
    return axis._replace(ticks=ticks)


def format_tick(value: float, step: float) -> str:
    """A number with as many decimals as the step between the marks has.

    :param value: The number.
    :param step: The distance of two marks.
    """
    if not 1e-4 <= step < 1e6:
        return f"{value:.3g}".replace("-", "−")
    decimals = next((d for d in range(6) if math.isclose(step * 10**d, round(step * 10**d), rel_tol=1e-9)), 6)
    return f"{value if abs(value) > step / 2 else 0:.{decimals}f}".replace("-", "−")


def _nice_step(least: float, whole: bool) -> float:
    """The smallest round step that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    steps = [power * step for step in _STEPS] + [power * 20]
    found = next(step for step in steps if step >= least * (1 - 1e-9) and not (whole and step < 1))
    return max(1.0, math.ceil(found)) if whole else found
