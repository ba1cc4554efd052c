"""Plots of the tables: each takes the table of one diagnostic (ValueError for another) and an ``Axes``, and returns it.

matplotlib is imported when a plot is drawn. Colours are those of Okabe and Ito for models and of Paul Tol ("muted")
for classes, which are told apart in the common kinds of colour blindness; line styles or markers say the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from art_lbgat.diagnostics.agreement import ADVERSARIAL, NATURAL
from art_lbgat.evaluation.results import check_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#333333")
LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CLASS_COLOURS = ("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499",
                 "#BBBBBB")  # fmt: skip
_KINDS = {NATURAL: "-", ADVERSARIAL: "--"}
_GREY = "#777777"
_SLICE = ("model", "u", "v", "predicted", "confidence", "inside")
_PALEST = 0.25  # strength of a class's colour where the confidence is 0
_ROOM = 0.037  # share of the width that the name of a class needs around its middle


def plot_agreement(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of the agreement with the guide per kind of images and model, with 95 % intervals.

    :param frame: The table of :func:`art_lbgat.diagnostics.agreement`.
    :param ax: Where to draw; None makes a figure.
    """
    columns = ("model", "guide_images", "model_images", "agreement", "low", "high")
    ax = _axes_for(frame, "agreement", columns, ax)
    kinds = _unique(zip(frame["guide_images"], frame["model_images"], strict=True))
    groups = frame.groupby("model", sort=False)
    for i, (name, part) in enumerate(groups):
        values = 100 * part.set_index(["guide_images", "model_images"])[["agreement", "low", "high"]]
        height, low, high = values.reindex(pd.Index(kinds)).to_numpy().T
        errors = np.maximum([height - low, high - height], 0)
        _bars(ax, height, i, len(groups), label=name, yerr=errors, capsize=3)
    ax.set_xticks(range(len(kinds)), [f"guide: {guide}\nmodel: {model}" for guide, model in kinds])
    ylabel = "same class as the guide (%)"
    return _finished(ax, xlabel="images", ylabel=ylabel, ylim=(0, 105), title="Agreement with the guide")


def plot_margins(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The share of images whose margin is at most m, which at 0 is the error. See :func:`plot_agreement`.

    ``frame`` is the table of :func:`art_lbgat.diagnostics.margins`.
    """
    ax = _axes_for(frame, "margins", ("model", "images", "margin"), ax)
    for i, kind, part, label in _curves(frame, "images"):
        values = np.sort(part["margin"].to_numpy())
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        ax.step(values, share, where="post", color=_colour(i), linestyle=_KINDS[kind], label=label)
    ax.axvline(0, color=_GREY, linewidth=0.8)
    xlabel, ylabel = "margin m of the label (logits)", "images with margin ≤ m (%)"
    return _finished(ax, xlabel=xlabel, ylabel=ylabel, title="Margins", ylim=(0, 101))


def plot_boundary_distance(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The share of images whose class is still the same at distance t along the direction. See :func:`plot_agreement`.

    ``frame`` is the table of :func:`art_lbgat.diagnostics.boundary_distance`.
    """
    ax = _axes_for(frame, "boundary_distance", ("model", "direction", "distance"), ax)
    styles = dict(zip(_unique(frame["direction"]), itertools.cycle(LINE_STYLES), strict=False))
    finite = frame["distance"][np.isfinite(frame["distance"])]
    end = 1.05 * float(finite.max()) if len(finite) else float(frame.attrs.get("max_distance", 1.0))
    for i, direction, part, label in _curves(frame, "direction"):
        distances = np.sort(part["distance"].dropna().to_numpy())
        found = int(np.isfinite(distances).sum())
        share = 100 * (1 - np.arange(found + 1) / len(distances)) if len(distances) else np.full(1, np.nan)
        x, y = [0.0, *distances[:found], end], [*share, share[-1]]
        ax.step(x, y, where="post", color=_colour(i), linestyle=styles[direction], label=label)
    ax.set(title="Distance to the decision boundary", xlim=(0, end), ylim=(0, 101))
    xlabel = f"distance t along the direction ({_unit(frame)})"
    return _finished(ax, xlabel=xlabel, ylabel="boundary farther than t (%)")


def plot_boundary_shift(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The guide's boundary after LBGAT over where it is in the natural model; above the diagonal it moved away.

    ``frame`` is the table of :func:`art_lbgat.diagnostics.boundary_shift`; its images without both boundaries are left
    out, and counted in the legend. See :func:`plot_agreement`.
    """
    ax = _axes_for(frame, "boundary_shift", ("direction", "before", "after", "shift"), ax)
    end = 0.0
    for i, (direction, part) in enumerate(frame.groupby("direction", sort=False)):
        both = part[np.isfinite(part["before"]) & np.isfinite(part["after"])]
        label = f"{direction} ({len(both)} of {len(part)})"
        ax.scatter(both["before"], both["after"], s=14, alpha=0.6, color=_colour(i), marker=MARKERS[i % len(MARKERS)],
                   linewidths=0, label=label)  # fmt: skip
        end = max(end, float(both[["before", "after"]].max().max()) if len(both) else 0.0)
    end = 1.05 * end or 1.0
    ax.plot([0, end], [0, end], color=_GREY, linewidth=0.8, label="not moved")
    ax.set(title="How the guide's boundary moved", xlim=(0, end), ylim=(0, end), aspect="equal")
    unit = _unit(frame)
    return _finished(ax, xlabel=f"natural model: distance ({unit})", ylabel=f"guide after LBGAT: distance ({unit})")


def plot_discrepancy(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of the transferred discrepancy per task and pair of models. See :func:`plot_agreement`.

    ``frame`` is the table of :func:`art_lbgat.diagnostics.transferred_discrepancy`.
    """
    ax = _axes_for(frame, "transferred_discrepancy", ("first", "second", "task", "discrepancy"), ax)
    tasks, groups = _unique(frame["task"]), frame.groupby(["first", "second"], sort=False)
    for i, ((first, second), part) in enumerate(groups):
        height = part.set_index("task")["discrepancy"].reindex(tasks).to_numpy()
        _bars(ax, height, i, len(groups), label=f"{first} / {second}")
    ax.set_xticks(range(len(tasks)), tasks)
    ylabel = "discrepancy (0 alike, 2 unrelated)"
    return _finished(ax, xlabel="downstream task", ylabel=ylabel, title="Transferred discrepancy")


def plot_calibration(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The reliability diagram, accuracy over confidence; under the diagonal a model is too sure.

    ``frame`` is the table of :func:`art_lbgat.diagnostics.reliability`. See :func:`plot_agreement`.
    """
    ax = _axes_for(frame, "reliability", ("model", "images", "n", "accuracy", "confidence"), ax)
    ax.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, label="calibrated")
    for i, kind, part, label in _curves(frame[frame["n"] > 0], "images"):
        ax.plot(part["confidence"], part["accuracy"], color=_colour(i), linestyle=_KINDS[kind],
                marker=MARKERS[i % len(MARKERS)], markersize=4, label=label)  # fmt: skip
    ax.set(title="Reliability", xlim=(0, 1), ylim=(0, 1.02))
    return _finished(ax, xlabel="confidence (mean of the bin)", ylabel="accuracy")


def plot_slice(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    model: str | None = None,
    legend: bool = True,
    class_names: Sequence[str] = (),
) -> Axes:
    """The regions of one model: colour is the class, its strength the confidence, black lines the boundaries.

    The white line is the border of the valid images (``clip_values``); the markers are the three images.

    :param frame: The table of :func:`art_lbgat.diagnostics.decision_slices`.
    :param ax: Where to draw; None makes a figure.
    :param model: Which model; None where there is only one.
    :param legend: Whether to draw the legend, at the right of the axes.
    :param class_names: A name for each class; empty writes the indices.
    """
    _check_table(frame, "decision_slices", _SLICE)
    names = _unique(frame["model"])
    if model is None and len(names) > 1:
        raise ValueError(f"model: expected one of {names}, got None; plot_slices draws all of them.")
    model = names[0] if model is None else model
    if model not in names:
        raise ValueError(f"model: expected one of {names}, got {model!r}.")
    ax = _make_axes(ax)
    part = frame[frame["model"] == model].sort_values(["v", "u"])
    u, v = np.unique(part["u"]), np.unique(part["v"])
    grids = (part[name].to_numpy().reshape(len(v), len(u)) for name in ("predicted", "confidence", "inside"))
    predicted, confidence, inside = grids
    image = _paint(predicted, confidence, class_colours(frame["predicted"]))
    half = (u[1] - u[0]) / 2
    extent = (u[0] - half, u[-1] + half, v[0] - half, v[-1] + half)
    ax.imshow(image, origin="lower", extent=extent, interpolation="none")
    lines = [(predicted == k, "black", 0.6) for k in np.unique(predicted)]
    for region, colour, width in [*lines, (inside, "black", 2.6), (inside, "white", 1.2)]:
        if region.any() and not region.all():
            ax.contour(u, v, region, levels=[0.5], colors=colour, linewidths=width)
    anchors = frame.attrs.get("anchors", {})
    for (name, (x, y)), marker in zip(anchors.items(), MARKERS, strict=False):
        ax.plot(x, y, marker, color="white", markeredgecolor="black", markeredgewidth=1.2, markersize=10, label=name)
    for k, (i, j) in _places(predicted, u, v, anchors, class_names).items():
        dark = image[i, j] @ (0.2126, 0.7152, 0.0722) < 0.45
        ax.text(u[j], v[i], class_title(k, class_names), ha="center", va="center", weight="bold",
                color="white" if dark else "black")  # fmt: skip
    ax.set(xlabel="u (L2, input units)", ylabel="v (L2, input units)", title=model, aspect="equal")
    if legend:
        _slice_legend(frame, ax, class_names)
    return ax


def plot_slices(
    frame: pd.DataFrame, axes: Sequence[Axes] | None = None, *, class_names: Sequence[str] = ()
) -> list[Axes]:
    """:func:`plot_slice` of every model, side by side on the same scale, with one legend. See :func:`plot_slice`.

    ``axes`` has one for each model, in the order of the table; None makes a figure.
    """
    _check_table(frame, "decision_slices", _SLICE)
    names = _unique(frame["model"])
    if axes is None:
        from matplotlib import pyplot

        size = (3.4 * len(names) + 1.6, 3.8)
        made = pyplot.subplots(1, len(names), figsize=size, layout="constrained", sharey=True, squeeze=False)[1]
        axes = list(made[0])
    if len(axes) != len(names):
        raise ValueError(f"axes: expected one for each of {names}, got {len(axes)}.")
    for ax, name in zip(axes, names, strict=True):
        plot_slice(frame, ax, model=name, legend=False, class_names=class_names)
        ax.label_outer()
    _slice_legend(frame, axes[-1], class_names)
    return list(axes)


def class_colours(predicted: Any) -> dict[int, str]:
    """A colour for each class that occurs, in the order of the classes; beyond ten they repeat."""
    return {int(k): CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, k in enumerate(np.unique(predicted))}


def class_title(index: Any, class_names: Sequence[str]) -> str:
    """The name of a class, or its index where it has none."""
    known = isinstance(index, (int, np.integer)) and 0 <= index < len(class_names)
    return str(class_names[index]) if known else str(index)


def _paint(predicted: NDArray[Any], confidence: NDArray[Any], colours: Mapping[int, str]) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgb

    image = np.zeros((*predicted.shape, 3))
    for each, colour in colours.items():
        image[predicted == each] = to_rgb(colour)
    strength = (_PALEST + (1 - _PALEST) * confidence)[..., None]
    return np.asarray(1 - strength * (1 - image))


def _places(
    predicted: NDArray[Any], u: NDArray[Any], v: NDArray[Any], anchors: Mapping[str, Any], class_names: Sequence[str]
) -> dict[int, tuple[int, int]]:
    """Row and column where the name of each class has room: in its largest region, away from the three images."""
    from scipy.ndimage import distance_transform_edt

    taken = np.zeros(predicted.shape, dtype=bool)
    for x, y in anchors.values():
        taken |= np.hypot(u[None, :] - x, v[:, None] - y) < 2 * _ROOM * (u[-1] - u[0])
    found = {}
    for k in np.unique(predicted):
        room = distance_transform_edt(np.pad((predicted == k) & ~taken, 1))[1:-1, 1:-1] / len(u)
        i, j = np.unravel_index(int(room.argmax()), room.shape)
        if room[i, j] >= _ROOM * max(1.0, 0.38 * len(class_title(k, class_names))):
            found[int(k)] = (int(i), int(j))
    return found


def _slice_legend(frame: pd.DataFrame, ax: Axes, class_names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke

    colours = class_colours(frame["predicted"])
    patches: list[Any] = [Patch(color=c, label=f"class {class_title(k, class_names)}") for k, c in colours.items()]
    lines: list[Any] = [Line2D([], [], color="black", linewidth=0.6, label="boundary")]
    if not frame["inside"].all():
        outline = [withStroke(linewidth=2.6, foreground="black")]
        lines.append(Line2D([], [], color="white", linewidth=1.2, path_effects=outline, label="end of clip_values"))
    _finished(ax, [*ax.get_legend_handles_labels()[0], *patches, *lines])


def _finished(ax: Axes, handles: list[Any] | None = None, **labels: str | tuple[float, float]) -> Axes:
    """``ax`` with its labels, and its legend at the right, where it hides nothing."""
    ax.set(**labels)
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, fontsize="small")
    return ax


def _axes_for(frame: Any, source: str, columns: Iterable[str], ax: Axes | None) -> Axes:
    _check_table(frame, source, columns)
    return _make_axes(ax)


def _make_axes(ax: Axes | None) -> Axes:
    """``ax``, or the axes of a new figure, which a notebook shows by itself."""
    from matplotlib import pyplot

    return ax if ax is not None else pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")[1]


def _check_table(frame: Any, source: str, columns: Iterable[str]) -> None:
    check_columns(frame, "frame", source, columns)
    if frame.empty:
        raise ValueError(f"frame: expected the table of {source}, got one with no rows.")


def _bars(ax: Axes, height: NDArray[Any], i: int, n: int, **options: Any) -> None:
    """The ``i``-th of ``n`` bars beside each other in every group."""
    width = 0.8 / n
    ax.bar(np.arange(len(height)) + (i - (n - 1) / 2) * width, height, width, color=_colour(i), **options)


def _curves(frame: pd.DataFrame, column: str) -> Iterator[tuple[int, str, pd.DataFrame, str]]:
    """For every model and value of a column: the place of the model, the value, its rows and its label."""
    for i, name in enumerate(_unique(frame["model"])):
        for kind, part in frame[frame["model"] == name].groupby(column, sort=False):
            yield i, str(kind), part, f"{name}, {kind}"


def _unit(frame: pd.DataFrame) -> str:
    return {"inf": "Linf, input units", "2": "L2, input units"}.get(frame.attrs.get("norm", ""), "input units")


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _colour(i: int) -> str:
    return MODEL_COLOURS[i % len(MODEL_COLOURS)]
