"""Charts as geometry that a template draws: pure functions from series of numbers to coordinates.

Nothing here is markup, so nothing has to be escaped here; colours are classes, so that one chart serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from art_lbgat.report.scales import CHARACTER, Axis, make_axis
from art_lbgat.report.tables import Table

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 30, 46
COLOURS, DASHES, MARKERS = 6, 5, 7  # pairwise coprime but for none: styles repeat after 210 series
LIMIT = 200  # points of a line that are drawn and tabulated; more would be drawn on the same pixels
_MARKS_PER_LINE = 8
PERCENT = (0.0, 100.0)


class Series(NamedTuple):
    """Points with a name.

    :param name: For the legend.
    :param x: Horizontal values.
    :param y: Vertical values, as many; NaN is a gap.
    :param low: Lower ends of the intervals of ``y``, or empty.
    :param high: Upper ends.
    :param x_low: Lower ends of the intervals of ``x``, or empty.
    :param x_high: Upper ends.
    :param strong: Whether it is emphasised.
    :param style: Which colour, line and marker; a model has the same in every chart.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    x_low: Sequence[float] = ()
    x_high: Sequence[float] = ()
    strong: bool = False
    style: int = 0


class Mark(NamedTuple):
    """What is drawn of one series, in pixels.

    :param name: For the legend.
    :param style: Classes of colour and line style.
    :param marker: Number of the marker's shape; -1 is the small circle of the backdrop, -2 none.
    :param lines: Polylines, ``"x,y x,y"``.
    :param bands: Closed areas, likewise.
    :param bars: Error bars, ``(x1, y1, x2, y2)``.
    :param points: Where markers are.
    :param strong: Whether it is emphasised.
    """

    name: str
    style: str
    marker: int
    lines: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    bars: tuple[tuple[float, float, float, float], ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    strong: bool = False


class Chart(NamedTuple):
    """A chart with all that is written beside it.

    :param title: What it shows.
    :param alt: What a reader who does not see it should know.
    :param x_label: Name and unit of the horizontal axis.
    :param y_label: Name and unit of the vertical axis.
    :param x: Horizontal axis.
    :param y: Vertical axis.
    :param marks: What is drawn, from back to front.
    :param table: The numbers.
    """

    title: str
    alt: str
    x_label: str
    y_label: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    table: Table


def lines(
    title: str,
    alt: str,
    series: Sequence[Series],
    table: Table,
    *,
    x_label: str,
    y_label: str,
    y_bounds: tuple[float, float] = (-math.inf, math.inf),
    whole_x: bool = False,
) -> Chart:
    """Lines with markers, and bands where there are intervals.

    :param title: What it shows.
    :param alt: Its text alternative.
    :param series: At most some ten, each sorted by ``x``.
    :param table: The numbers.
    :param x_label: With its unit.
    :param y_label: With its unit.
    :param y_bounds: As in :func:`make_axis`.
    :param whole_x: Whether ``x`` counts something.
    """
    y = make_axis([v for s in series for v in (*s.y, *s.low, *s.high)], HEIGHT - BOTTOM, TOP, bounds=y_bounds)
    x = make_axis([v for s in series for v in s.x], _left(y), WIDTH - RIGHT, whole=whole_x, tight=True)
    marks = tuple(_line(s, i, len(series), x, y) for i, s in enumerate(series))
    return Chart(title, alt, x_label, y_label, x, y, marks, table)


def scatter(
    title: str,
    alt: str,
    series: Sequence[Series],
    table: Table,
    *,
    x_label: str,
    y_label: str,
    bounds: tuple[float, float] = PERCENT,
    backdrop: Series | None = None,
    front: Series | None = None,
) -> Chart:
    """Points with error bars over a backdrop of others and the front that none is beyond.

    :param title: What it shows.
    :param alt: Its text alternative.
    :param series: Each one point or several, in front.
    :param table: The numbers.
    :param x_label: With its unit.
    :param y_label: With its unit.
    :param bounds: Of both axes.
    :param backdrop: Many points, drawn small and pale.
    :param front: Points that none is beyond, in rising order of ``x``; drawn as a staircase.
    """
    everything = [*series, *([] if backdrop is None else [backdrop])]
    xs = [v for s in everything for v in (*s.x, *s.x_low, *s.x_high)]
    ys = [v for s in everything for v in (*s.y, *s.low, *s.high)]
    y = make_axis(ys, HEIGHT - BOTTOM, TOP, bounds=bounds)
    x = make_axis(xs, _left(y), WIDTH - RIGHT, bounds=bounds)
    marks = []
    if front is not None:
        marks.append(Mark(front.name, "front", -2, lines=(_staircase(front, x, y),)))
    if backdrop is not None:
        marks.append(Mark(backdrop.name, "board", -1, points=_points(backdrop, x, y)))
    for s in sorted(series, key=lambda each: each.strong):  # what is emphasised lies on top
        up = [(x.at(at), y.at(low), x.at(at), y.at(high)) for at, low, high in _finite(s.x, s.low, s.high)]
        across = [(x.at(low), y.at(at), x.at(high), y.at(at)) for at, low, high in _finite(s.y, s.x_low, s.x_high)]
        marks.append(Mark(s.name, _style(s.style), s.style % MARKERS, bars=(*up, *across), points=_points(s, x, y),
                          strong=s.strong))  # fmt: skip
    return Chart(title, alt, x_label, y_label, x, y, tuple(marks), table)


def thin(n: int, limit: int = LIMIT) -> list[int]:
    """At most ``limit`` of ``n`` indices, evenly spread, the first and the last among them.

    :param n: How many there are.
    :param limit: How many are wanted.
    """
    if n <= limit:
        return list(range(n))
    return sorted({round(k * (n - 1) / (limit - 1)) for k in range(limit)})


def _left(y: Axis) -> float:
    """Where the chart begins: to the right of the labels of its vertical axis."""
    return max(LEFT, 14 + CHARACTER * max(len(tick.label) for tick in y.ticks))


def _finite(*columns: Sequence[float]) -> list[tuple[float, ...]]:
    """The rows that hold neither NaN nor Inf; none where a column is empty."""
    return [row for row in zip(*columns, strict=False) if all(map(math.isfinite, row))]


def _style(i: int) -> str:
    return f"c{i % COLOURS} d{i % DASHES}"


def _points(series: Series, x: Axis, y: Axis) -> tuple[tuple[float, float], ...]:
    return tuple((x.at(a), y.at(b)) for a, b in _finite(series.x, series.y))


def _line(series: Series, index: int, count: int, x: Axis, y: Axis) -> Mark:
    runs: list[list[int]] = [[]]
    for i, value in enumerate(series.y):
        if math.isfinite(value):
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if run]
    drawn = tuple(_polyline([(x.at(series.x[i]), y.at(series.y[i])) for i in run]) for run in runs)
    bands = []
    for run in runs if len(series.low) and len(series.high) else []:
        edge = [(x.at(series.x[i]), y.at(series.high[i])) for i in run]
        edge += [(x.at(series.x[i]), y.at(series.low[i])) for i in reversed(run)]
        bands.append(_polyline(edge))
    points = [(x.at(series.x[i]), y.at(series.y[i])) for run in runs for i in run]
    every = max(1, math.ceil(len(points) / _MARKS_PER_LINE))
    first = (index * every) // max(1, count)  # so that the markers of lines that lie on each other do not
    return Mark(
        series.name, _style(series.style), series.style % MARKERS, drawn, tuple(bands),
        points=tuple(points[first::every]), strong=series.strong,
    )  # fmt: skip


def _staircase(front: Series, x: Axis, y: Axis) -> str:
    """The border of what is dominated: nothing lies beyond it to the upper right."""
    corners = [(x.start, y.at(front.y[0]))]
    for (px, py), following in zip(zip(front.x, front.y, strict=True), [*front.y[1:], y.low], strict=True):
        corners += [(x.at(px), y.at(py)), (x.at(px), y.at(following))]
    return _polyline(corners)


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:g},{b:g}" for a, b in points)
