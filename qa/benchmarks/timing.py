"""Interleaved rounds, medians, spread, and ratios of what ran side by side."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from art_lbgat.memory import is_out_of_memory

Contestant = Callable[[], Mapping[str, float] | None]
FEWEST = 3  # rounds that are measured even when time is up


class Stat(NamedTuple):
    """A number measured several times.

    :param median: The median.
    :param q1: First quartile.
    :param q3: Third quartile.
    :param n: How often it was measured.
    """

    median: float
    q1: float
    q3: float
    n: int


def stat(values: Sequence[float]) -> Stat:
    """Median and quartiles.

    :param values: At least one number.
    :return: The statistics.
    """
    q1, median, q3 = np.percentile(np.asarray(values, dtype=np.float64), [25, 50, 75]).tolist()
    return Stat(median, q1, q3, len(values))


@dataclass
class Rounds:
    """Seconds of each contestant in each round.

    :param seconds: By contestant, a value per round; what a contestant reports itself is there as well.
    :param first: Seconds of the warm-up round, in which compilation happens.
    :param failed: Contestants that could not be measured, and why.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def time(self, name: str, scale: float = 1.0) -> Stat:
        """Seconds of one contestant.

        :param name: The contestant.
        :param scale: What one run is divided by, such as its number of steps.
        :return: Median and quartiles.
        """
        return stat([value / scale for value in self.seconds[name]])

    def ratio(self, upper: str, lower: str) -> Stat:
        """``upper / lower``, taken within each round, where both ran under the same conditions.

        :param upper: A contestant.
        :param lower: Another.
        :return: Median and quartiles over the rounds.
        """
        pairs = zip(self.seconds[upper], self.seconds[lower], strict=True)
        return stat([first / second for first, second in pairs])

    def warm_up(self, name: str) -> float:
        """Seconds that the first run took beyond a usual one.

        :param name: The contestant.
        :return: Seconds, at least 0.
        """
        return max(0.0, self.first[name] - self.time(name).median)


def measure(
    contestants: Mapping[str, Contestant],
    repeats: int,
    limit: float | None = None,
    device: torch.device | None = None,
    deadline: float | None = None,
) -> Rounds:
    """Run all contestants in turn, so that a slow moment of the machine hits all alike; each round starts with another.

    One round before the others warms up. A contestant that runs out of memory is left out, and said to be.

    :param contestants: What to run; a returned mapping holds further seconds, by name, measured inside.
    :param repeats: Rounds.
    :param limit: After so many seconds, warm-up apart, no new round is begun, once three were measured; None for no limit.
    :param device: On CUDA the time is taken between two events on its stream.
    :param deadline: ``time.monotonic()`` after which no further contestant is warmed up and no further round begun.
    :return: What was measured.
    """
    rounds, left = Rounds(), dict(contestants)
    for name in list(left):
        if deadline is not None and time.monotonic() > deadline:
            rounds.failed[name] = "no time left"
            del left[name]
            continue
        try:
            rounds.first[name] = _timed(left[name], device)[0]
        except Exception as error:  # ours names what to set, and the device's error as the cause
            if not any(e is not None and is_out_of_memory(e) for e in (error, error.__cause__)):
                raise
            rounds.failed[name] = "out of memory"
            del left[name]
        if device is not None and device.type == "cuda":
            torch.cuda.empty_cache()
    order, begin = list(left), time.monotonic()
    for number in range(repeats):
        late = deadline is not None and time.monotonic() > deadline and number > 0
        slow = limit is not None and time.monotonic() - begin > limit and number >= FEWEST
        if late or slow:
            break
        gc.collect()
        turn = number % max(len(order), 1)
        for name in [*order[turn:], *order[:turn]]:
            seconds, further = _timed(left[name], device)
            rounds.seconds.setdefault(name, []).append(seconds)
            for extra, value in further.items():
                rounds.seconds.setdefault(f"{name}: {extra}", []).append(value)
    return rounds


def _timed(contestant: Contestant, device: torch.device | None) -> tuple[float, Mapping[str, float]]:
    if device is None or device.type != "cuda":
        start = time.perf_counter()
        further = contestant()
        return time.perf_counter() - start, further or {}
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    further = contestant()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000, further or {}
