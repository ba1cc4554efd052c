"""Whether the cost of a step is linear: seconds against K, batch size and depth, with the fitted line."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qa.benchmarks.contestants import Task, ours
from qa.benchmarks.report import Row, Settings, Topic, Value
from qa.benchmarks.timing import Stat, measure

_SWEEPS = {
    "K": [(k, Task("wrn-10-1", 64, k=k)) for k in (1, 5, 10, 20)],
    "batch size": [(n, Task("wrn-10-1", n)) for n in (32, 64, 128, 256)],
    "depth": [(d, Task(f"wrn-{d}-1", 64)) for d in (10, 16, 22)],
}
_TOY = {"K": [(k, Task("digits-cnn", 8, k=k)) for k in (1, 2, 3)]}


class Line(NamedTuple):
    """``slope * x + intercept``.

    :param slope: Of the least-squares line.
    :param intercept: Its value at 0.
    :param r2: Share of the variance that it explains.
    """

    slope: float
    intercept: float
    r2: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The least-squares line.

    :param x: At least two different numbers.
    :param y: As many.
    :return: The line and its R².
    """
    values = np.asarray(y, dtype=np.float64)
    slope, intercept = np.polyfit(x, values, 1).tolist()
    residual = values - (slope * np.asarray(x) + intercept)
    spread = float(((values - values.mean()) ** 2).sum())
    return Line(slope, intercept, 1.0 if spread == 0 else 1 - float((residual**2).sum()) / spread)


def run(settings: Settings) -> Topic:
    """Seconds per step in three sweeps, each interleaved."""
    rows = []
    for quantity, points in (_TOY if settings.toy else _SWEEPS).items():
        rounds = measure({str(x): ours(task) for x, task in points}, settings.fewer, settings.limit)
        times = [rounds.time(str(x)) for x, _ in points]
        line = fit_line([x for x, _ in points], [t.median for t in times])
        for (x, _), time in zip(points, times, strict=True):
            rows.append(Row(f"{quantity} = {x}", {"s": time, "line, s": line.slope * x + line.intercept}))
        found: dict[str, Value] = {"slope, s": line.slope, "intercept, s": line.intercept, "R²": line.r2}
        rows.append(Row(f"{quantity}: line", found))
    return Topic("Scaling, LBGAT + TRADES a=0; WRN-10-1, K = 10, batch 64 but for what varies", rows)


def draw(topic: Topic, path: Path) -> str:
    """Draw the sweeps with their lines as SVG.

    :param topic: What :func:`run` gave.
    :param path: The file.
    :return: What was done, or that matplotlib, which is no dependency of the package, is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return "No plot was drawn: matplotlib is not installed."
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    sweeps: dict[str, list[tuple[float, Stat]]] = {}
    lines: dict[str, Line] = {}
    for name, values in topic.rows:
        quantity = name.split(" = ")[0].removesuffix(": line")
        if name.endswith(": line"):
            lines[quantity] = Line(values["slope, s"], values["intercept, s"], values["R²"])  # type: ignore[arg-type]
        else:
            sweeps.setdefault(quantity, []).append((float(name.split(" = ")[1]), values["s"]))  # type: ignore[arg-type]
    figure, axes = pyplot.subplots(1, len(sweeps), figsize=(4 * len(sweeps), 3), squeeze=False)
    for axis, (quantity, points) in zip(axes[0], sweeps.items(), strict=True):
        x, medians = [p[0] for p in points], [p[1].median for p in points]
        errors = [[p[1].median - p[1].q1 for p in points], [p[1].q3 - p[1].median for p in points]]
        line = lines[quantity]
        axis.errorbar(x, medians, errors, fmt="o")
        ends = [0.0, max(x)]
        label = f"{line.slope:.3g} s each, R² = {line.r2:.4f}"
        axis.plot(ends, [line.slope * end + line.intercept for end in ends], label=label)
        axis.set(xlabel=quantity, ylabel="seconds per step", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return f"The plot is in {path}."
