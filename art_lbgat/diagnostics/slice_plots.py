"""The pictures of decision regions on a plane through three images, one model each, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from art_lbgat.diagnostics.plots import MARKERS, check_table, make_axes, outside_legend, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASS_COLOURS = ("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499",
                 "#BBBBBB")  # fmt: skip
_COLUMNS = ("model", "u", "v", "predicted", "confidence", "inside")
_PALEST = 0.25  # strength of the colour where the confidence is 0


def plot_slice(frame: pd.DataFrame, ax: Axes | None = None, *, model: str | None = None, legend: bool = True) -> Axes:
    """The regions of one model: colour is the class, its strength the confidence, black lines the boundaries.

    The dashed line is the border of the valid images (``clip_values``); the markers are the three images.

    :param frame: The table of :func:`art_lbgat.diagnostics.decision_slices`.
    :param ax: Where to draw; None makes a figure.
    :param model: Which model; None where there is only one.
    :param legend: Whether to draw the legend, at the right of the axes.
    :return: The axes.
    :raises ValueError: Another table, or a model that is not in it.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "decision_slices", _COLUMNS)
    names = list(dict.fromkeys(frame["model"]))
    if model is None and len(names) > 1:
        raise ValueError(f"model: expected one of {names}, got None; plot_slices draws all of them.")
    model = names[0] if model is None else model
    if model not in names:
        raise ValueError(f"model: expected one of {names}, got {model!r}.")
    ax = make_axes(ax)
    part = frame[frame["model"] == model].sort_values(["v", "u"])
    u, v = np.unique(part["u"]), np.unique(part["v"])
    shape = (len(v), len(u))
    predicted, confidence, inside = (part[c].to_numpy().reshape(shape) for c in ("predicted", "confidence", "inside"))
    colours = class_colours(frame["predicted"])
    half = (u[1] - u[0]) / 2
    extent = (u[0] - half, u[-1] + half, v[0] - half, v[-1] + half)
    ax.imshow(_paint(predicted, confidence, colours), origin="lower", extent=extent, interpolation="nearest")
    for each in np.unique(predicted):
        if (predicted != each).any():
            ax.contour(u, v, predicted == each, levels=[0.5], colors="black", linewidths=0.6)
    if inside.any() and not inside.all():
        ax.contour(u, v, inside, levels=[0.5], colors="black", linewidths=1.0, linestyles="dashed")
    for (name, (x, y)), marker in zip(frame.attrs.get("anchors", {}).items(), MARKERS, strict=False):
        ax.plot(x, y, marker, color="white", markeredgecolor="black", markersize=8, linestyle="none", label=name)
    ax.set(xlabel="u (L2, input units)", ylabel="v (L2, input units)", title=model)
    ax.set_aspect("equal")
    if legend:
        add_legend(frame, ax)
    return ax


def plot_slices(frame: pd.DataFrame, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """:func:`plot_slice` of every model, side by side on the same scale, with one legend.

    :param frame: The table of :func:`art_lbgat.diagnostics.decision_slices`.
    :param axes: One for each model, in the order of the table; None makes a figure.
    :return: The axes.
    :raises ValueError: Another table, or another number of axes than of models.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "decision_slices", _COLUMNS)
    names = list(dict.fromkeys(frame["model"]))
    if axes is None:
        figure = (3.4 * len(names) + 1.6, 3.8)
        made = pyplot().subplots(1, len(names), figsize=figure, layout="constrained", sharey=True, squeeze=False)[1]
        axes = list(made[0])
    if len(axes) != len(names):
        raise ValueError(f"axes: expected one for each of {names}, got {len(axes)}.")
    for ax, name in zip(axes, names, strict=True):
        plot_slice(frame, ax, model=name, legend=False)
        ax.label_outer()
    add_legend(frame, axes[-1])
    return list(axes)


def add_legend(frame: pd.DataFrame, ax: Axes) -> None:
    """Classes, images and lines, at the right of ``ax``.

    :param frame: The table of :func:`art_lbgat.diagnostics.decision_slices`.
    :param ax: Axes that :func:`plot_slice` has drawn on.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    patches: list[Any] = [Patch(color=c, label=f"class {k}") for k, c in class_colours(frame["predicted"]).items()]
    markers = ax.get_legend_handles_labels()[0]
    lines: list[Any] = [Line2D([], [], color="black", linewidth=0.6, label="boundary")]
    if not frame["inside"].all():
        lines.append(Line2D([], [], color="black", linewidth=1.0, linestyle="dashed", label="end of clip_values"))
    outside_legend(ax, handles=[*markers, *patches, *lines])


def class_colours(predicted: Any) -> dict[int, str]:
    """A colour for each class that occurs, in the order of the classes; beyond ten they repeat.

    :param predicted: Class indices.
    """
    return {int(k): CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, k in enumerate(np.unique(predicted))}


def _paint(predicted: NDArray[Any], confidence: NDArray[Any], colours: dict[int, str]) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgb

    image = np.zeros((*predicted.shape, 3))
    for each, colour in colours.items():
        image[predicted == each] = to_rgb(colour)
    strength = (_PALEST + (1 - _PALEST) * confidence)[..., None]
    return np.asarray(1 - strength * (1 - image))
