"""Plots of the tables: each takes the table of one diagnostic and an ``Axes`` (or makes one), and returns it.

matplotlib is imported when a plot is drawn. Colours are those of Okabe and Ito for models and of Paul Tol ("muted")
for classes, which are told apart in the common kinds of colour blindness; line styles or markers say the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from art_lbgat.diagnostics.subjects import ADVERSARIAL, NATURAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_KINDS = {NATURAL: "-", ADVERSARIAL: "--"}
_GREY = "#777777"


def pyplot() -> Any:
    """``matplotlib.pyplot``.

    :raises ImportError: If matplotlib is not installed, with the command that installs it.
    """
    try:
        from matplotlib import pyplot as module
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "art-lbgat[plots]"') from error
    return module


def plot_agreement(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of the agreement with the guide per kind of images and model, with 95 % intervals.

    :param frame: The table of :func:`art_lbgat.diagnostics.agreement`.
    :param ax: Where to draw; None makes a figure.
    :return: The axes.
    :raises ValueError: If it is another table.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "agreement", ("model", "guide_images", "model_images", "agreement", "low", "high"))
    ax = make_axes(ax)
    kinds = _unique(zip(frame["guide_images"], frame["model_images"], strict=True))
    models = _unique(frame["model"])
    width = 0.8 / len(models)
    for i, name in enumerate(models):
        part = frame[frame["model"] == name].set_index(["guide_images", "model_images"]).reindex(pd.Index(kinds))
        height = 100 * part["agreement"].to_numpy()
        errors = [height - 100 * part["low"].to_numpy(), 100 * part["high"].to_numpy() - height]
        place = np.arange(len(kinds)) + (i - (len(models) - 1) / 2) * width
        ax.bar(place, height, width, yerr=np.maximum(errors, 0), capsize=3, color=_colour(i), label=name)
    ax.set_xticks(range(len(kinds)), [f"guide: {guide}\nmodel: {model}" for guide, model in kinds])
    ax.set(xlabel="images", ylabel="same class as the guide (%)", ylim=(0, 105), title="Agreement with the guide")
    outside_legend(ax)
    return ax


def plot_margins(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The share of images whose margin is at most m; at 0 it is the error.

    :param frame: The table of :func:`art_lbgat.diagnostics.margins`.
    :param ax: Where to draw; None makes a figure.
    :return: The axes.
    :raises ValueError: If it is another table.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "margins", ("model", "images", "margin"))
    ax = make_axes(ax)
    for i, name in enumerate(_unique(frame["model"])):
        for kind, part in frame[frame["model"] == name].groupby("images", sort=False):
            values = np.sort(part["margin"].to_numpy())
            share = 100 * np.arange(1, len(values) + 1) / len(values)
            ax.step(values, share, where="post", color=_colour(i), linestyle=_KINDS[str(kind)], label=f"{name}, {kind}")
    ax.axvline(0, color=_GREY, linewidth=0.8)
    ax.set(xlabel="margin m of the label (logits)", ylabel="images with margin ≤ m (%)", title="Margins", ylim=(0, 101))
    outside_legend(ax)
    return ax


def plot_boundary_distance(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The share of images whose class is still the same at distance t along the direction.

    :param frame: The table of :func:`art_lbgat.diagnostics.boundary_distance`.
    :param ax: Where to draw; None makes a figure.
    :return: The axes.
    :raises ValueError: If it is another table.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "boundary_distance", ("model", "direction", "distance"))
    ax = make_axes(ax)
    styles = dict(zip(_unique(frame["direction"]), itertools.cycle(LINE_STYLES), strict=False))
    finite = frame["distance"][np.isfinite(frame["distance"])]
    end = 1.05 * float(finite.max()) if len(finite) else float(frame.attrs.get("max_distance", 1.0))
    for i, name in enumerate(_unique(frame["model"])):
        for direction, part in frame[frame["model"] == name].groupby("direction", sort=False):
            distances = np.sort(part["distance"].dropna().to_numpy())
            found = int(np.isfinite(distances).sum())
            share = 100 * (1 - np.arange(found + 1) / len(distances)) if len(distances) else np.full(1, np.nan)
            x = np.concatenate([[0.0], distances[:found], [end]])
            y = np.append(share, share[-1])
            label = f"{name}, {direction}"
            ax.step(x, y, where="post", color=_colour(i), linestyle=styles[str(direction)], label=label)
    ax.set(xlabel=f"distance t along the direction ({_unit(frame)})", ylabel="boundary farther than t (%)")
    ax.set(title="Distance to the decision boundary", xlim=(0, end), ylim=(0, 101))
    outside_legend(ax)
    return ax


def plot_boundary_shift(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The guide's boundary after LBGAT over where it is in the natural model; above the diagonal it moved away.

    :param frame: The table of :func:`art_lbgat.diagnostics.boundary_shift`; images without both boundaries are left
        out, and counted in the legend.
    :param ax: Where to draw; None makes a figure.
    :return: The axes.
    :raises ValueError: If it is another table.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "boundary_shift", ("direction", "before", "after", "shift"))
    ax = make_axes(ax)
    end = 0.0
    for i, (direction, part) in enumerate(frame.groupby("direction", sort=False)):
        both = part[np.isfinite(part["before"]) & np.isfinite(part["after"])]
        label = f"{direction} ({len(both)} of {len(part)})"
        ax.scatter(both["before"], both["after"], s=14, alpha=0.6, color=_colour(i), marker=_cycled(MARKERS, i),
                   linewidths=0, label=label)  # fmt: skip
        end = max(end, float(both[["before", "after"]].max().max()) if len(both) else 0.0)
    end = 1.05 * end or 1.0
    ax.plot([0, end], [0, end], color=_GREY, linewidth=0.8, label="not moved")
    ax.set(xlabel=f"natural model: distance ({_unit(frame)})", ylabel=f"guide after LBGAT: distance ({_unit(frame)})")
    ax.set(title="How the guide's boundary moved", xlim=(0, end), ylim=(0, end))
    ax.set_aspect("equal")
    outside_legend(ax)
    return ax


def plot_discrepancy(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of the transferred discrepancy per task and pair of models.

    :param frame: The table of :func:`art_lbgat.diagnostics.transferred_discrepancy`.
    :param ax: Where to draw; None makes a figure.
    :return: The axes.
    :raises ValueError: If it is another table.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "transferred_discrepancy", ("first", "second", "task", "discrepancy"))
    ax = make_axes(ax)
    tasks = _unique(frame["task"])
    pairs = _unique(zip(frame["first"], frame["second"], strict=True))
    width = 0.8 / len(pairs)
    for i, (first, second) in enumerate(pairs):
        part = frame[(frame["first"] == first) & (frame["second"] == second)].set_index("task").reindex(tasks)
        place = np.arange(len(tasks)) + (i - (len(pairs) - 1) / 2) * width
        ax.bar(place, part["discrepancy"].to_numpy(), width, color=_colour(i), label=f"{first} / {second}")
    ax.set_xticks(range(len(tasks)), tasks)
    ax.set(xlabel="downstream task", ylabel="discrepancy (0 alike, 2 unrelated)", title="Transferred discrepancy")
    outside_legend(ax)
    return ax


def plot_calibration(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The reliability diagram: accuracy over confidence; under the diagonal a model is too sure.

    :param frame: The table of :func:`art_lbgat.diagnostics.reliability`.
    :param ax: Where to draw; None makes a figure.
    :return: The axes.
    :raises ValueError: If it is another table.
    :raises ImportError: Without matplotlib.
    """
    check_table(frame, "reliability", ("model", "images", "n", "accuracy", "confidence"))
    ax = make_axes(ax)
    ax.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, label="calibrated")
    for i, name in enumerate(_unique(frame["model"])):
        for kind, part in frame[(frame["model"] == name) & (frame["n"] > 0)].groupby("images", sort=False):
            ax.plot(part["confidence"], part["accuracy"], color=_colour(i), linestyle=_KINDS[str(kind)],
                    marker=_cycled(MARKERS, i), markersize=4, label=f"{name}, {kind}")  # fmt: skip
    ax.set(xlabel="confidence (mean of the bin)", ylabel="accuracy", title="Reliability", xlim=(0, 1), ylim=(0, 1.02))
    outside_legend(ax)
    return ax


def outside_legend(ax: Axes, **options: Any) -> None:
    """The legend at the right of ``ax``, where it hides nothing.

    :param ax: The axes.
    :param options: More arguments of ``ax.legend``.
    """
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, fontsize="small", **options)


def make_axes(ax: Axes | None, size: tuple[float, float] = (7.2, 4.2)) -> Axes:
    """``ax``, or the axes of a new figure of ``size`` inches.

    :param ax: Axes that are there, or None.
    :param size: Width and height of a new figure, in inches.
    """
    if ax is not None:
        return ax
    made: Axes = pyplot().subplots(figsize=size, layout="constrained")[1]
    return made


def check_table(frame: Any, source: str, columns: Iterable[str]) -> None:
    """Refuse a table that is not the one a plot draws.

    :param frame: What came.
    :param source: The function whose table it should be.
    :param columns: Columns it must have.
    :raises TypeError: If it is no DataFrame.
    :raises ValueError: If it is empty or columns are missing.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame: expected the table of {source}, got {type(frame).__name__}.")
    missing = [column for column in columns if column not in frame.columns]
    if missing or frame.empty:
        found = f"missing columns {missing}" if missing else "no rows"
        raise ValueError(f"frame: expected the table of {source}, got one with {found}.")


def _unit(frame: pd.DataFrame) -> str:
    return {"inf": "Linf, input units", "2": "L2, input units"}.get(frame.attrs.get("norm", ""), "input units")


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _colour(i: int) -> str:
    return _cycled(MODEL_COLOURS, i)


def _cycled(values: tuple[str, ...], i: int) -> str:
    return values[i % len(values)]
