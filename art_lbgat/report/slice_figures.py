"""Decision regions on the plane through three images, as a picture with its boundaries, labels and axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from art_lbgat.diagnostics.slice_plots import class_colours
from art_lbgat.report.charts import Mark
from art_lbgat.report.content import class_title
from art_lbgat.report.images import png_uri
from art_lbgat.report.scales import Axis, make_axis
from art_lbgat.report.tables import Column, Table, make_table, percent

if TYPE_CHECKING:
    import pandas

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 300, 44, 12, 12, 42
_PALEST = 0.25  # strength of the colour where the confidence is 0
_ROOM = 9.0  # pixels that a label needs around its middle


class Label(NamedTuple):
    """A text on the picture.

    :param x: Middle, pixels.
    :param y: Base line, pixels.
    :param text: The class.
    """

    x: float
    y: float
    text: str


class SliceFigure(NamedTuple):
    """The regions of one model.

    :param title: The model.
    :param alt: What a reader who does not see it should know.
    :param uri: The picture of the regions.
    :param height: Of the whole figure, in pixels.
    :param x: Horizontal axis.
    :param y: Vertical axis.
    :param boundary: Path of the lines between classes.
    :param limit: Path of the border of the valid images, or empty.
    :param labels: Classes, where there is room.
    :param anchors: The three images.
    :param table: Share of the plane of each class.
    """

    title: str
    alt: str
    uri: str
    height: float
    x: Axis
    y: Axis
    boundary: str
    limit: str
    labels: tuple[Label, ...]
    anchors: tuple[Mark, ...]
    table: Table


class Swatch(NamedTuple):
    """An entry of the legend.

    :param colour: Of the class.
    :param name: The class.
    """

    colour: str
    name: str


def make_slices(frame: pandas.DataFrame, class_names: Sequence[str]) -> tuple[list[SliceFigure], list[Swatch]]:
    """A figure per model, all with the same colours, and the legend of the classes.

    :param frame: The table of :func:`art_lbgat.diagnostics.decision_slices`.
    :param class_names: A name for each class, or nothing.
    :raises ValueError: If the points of a model are no grid.
    """
    colours = class_colours(frame["predicted"])
    figures = [
        _figure(str(name), part, colours, frame.attrs.get("anchors", {}), class_names)
        for name, part in frame.groupby("model", sort=False)
    ]
    return figures, [Swatch(colour, class_title(k, class_names)) for k, colour in colours.items()]


def edges(regions: NDArray[Any], x: Sequence[float], y: Sequence[float]) -> str:
    """The lines between cells that differ, as an SVG path.

    :param regions: A value per cell, ``(rows, columns)``.
    :param x: Pixels of the sides of the columns, one more than there are columns.
    :param y: Pixels of the sides of the rows.
    """
    path = [f"M{x[j + 1]:g} {y[i]:g}V{y[i + 1]:g}" for i, j in np.argwhere(regions[:, 1:] != regions[:, :-1])]
    path += [f"M{x[j]:g} {y[i + 1]:g}H{x[j + 1]:g}" for i, j in np.argwhere(regions[1:] != regions[:-1])]
    return "".join(path)


def _figure(
    name: str, part: pandas.DataFrame, colours: dict[int, str], anchors: dict[str, Any], class_names: Sequence[str]
) -> SliceFigure:
    import pandas

    part = part.sort_values(["v", "u"])
    u, v = np.unique(part["u"]), np.unique(part["v"])
    if len(u) * len(v) != len(part) or min(len(u), len(v)) < 2:
        raise ValueError(f"slices: expected a grid of points for {name!r}, got {len(part)} points.")
    shape = len(v), len(u)
    predicted, confidence = (part[column].to_numpy().reshape(shape) for column in ("predicted", "confidence"))
    inside = part["inside"].to_numpy().reshape(shape) if "inside" in part else np.ones(shape, dtype=bool)
    half_u, half_v = (u[1] - u[0]) / 2, (v[1] - v[0]) / 2
    width = WIDTH - LEFT - RIGHT
    tall = width * (v[-1] - v[0] + 2 * half_v) / (u[-1] - u[0] + 2 * half_u)
    x = make_axis([u[0] - half_u, u[-1] + half_u], LEFT, WIDTH - RIGHT, tight=True)
    y = make_axis([v[0] - half_v, v[-1] + half_v], TOP + tall, TOP, tight=True)
    sides = (
        [x.at(value) for value in [u[0] - half_u, *(u + half_u)]],
        [y.at(value) for value in [v[0] - half_v, *(v + half_v)]],
    )
    marks = tuple(
        Mark(str(title), "anchor", i, points=((x.at(point[0]), y.at(point[1])),))
        for i, (title, point) in enumerate(anchors.items())
    )
    shares = {k: float((predicted == k).mean()) for k in colours if (predicted == k).any()}
    rows = [
        {"class": class_title(k, class_names), "share": share, "confidence": float(confidence[predicted == k].mean())}
        for k, share in shares.items()
    ]
    columns = [Column("class", "class"), Column("share", "share of the plane (%)", percent),
               Column("confidence", "mean confidence (%)", percent)]  # fmt: skip
    largest = max(shares, key=lambda k: shares[k])
    alt = (
        f"Regions of {name} on the plane through three images: {len(shares)} classes; class "
        f"{class_title(largest, class_names)} takes the largest share, {percent(shares[largest])} %."
    )
    return SliceFigure(
        name, alt, png_uri(_paint(predicted, confidence, colours)[:, ::-1]), TOP + tall + BOTTOM, x, y,
        edges(predicted, *sides), edges(inside, *sides), _labels(predicted, sides, class_names, list(marks)), marks,
        make_table(f"{name}: what each class takes of the plane", pandas.DataFrame(rows), columns),
    )  # fmt: skip


def _labels(
    predicted: NDArray[Any], sides: tuple[list[float], list[float]], class_names: Sequence[str], anchors: list[Mark]
) -> tuple[Label, ...]:
    """The name of each class in the middle of its largest region, where it has room and hides no image."""
    from scipy.ndimage import distance_transform_edt

    x, y = (np.array(side) for side in sides)
    at_x, at_y = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
    cell = abs(float(x[1] - x[0]))
    taken = np.zeros(predicted.shape, dtype=bool)
    for mark in anchors:
        ((px, py),) = mark.points
        taken |= np.hypot(at_x[None, :] - px, at_y[:, None] - py) < 2 * _ROOM
    labels = []
    for k in np.unique(predicted):
        region = np.pad((predicted == k) & ~taken, 1)
        room = distance_transform_edt(region)[1:-1, 1:-1] * cell
        i, j = np.unravel_index(int(room.argmax()), room.shape)
        name = class_title(k, class_names)
        if room[i, j] >= _ROOM * max(1.0, 0.38 * len(name)):
            labels.append(Label(round(float(at_x[j]), 1), round(float(at_y[i]) + 4.5, 1), name))
    return tuple(labels)


def _paint(predicted: NDArray[Any], confidence: NDArray[Any], colours: dict[int, str]) -> NDArray[np.float64]:
    image = np.zeros((3, *predicted.shape))
    for k, colour in colours.items():
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        image[:, predicted == k] = rgb[:, None]
    return np.asarray(1 - (_PALEST + (1 - _PALEST) * confidence) * (1 - image))
