"""Training curves out of ``trainer.history``: one chart per measure, a line per run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from art_lbgat.report import charts
from art_lbgat.report.charts import Chart, Series
from art_lbgat.report.tables import Column, make_table, number, significant

if TYPE_CHECKING:
    import pandas

_SCORES = {
    "validation_robust_accuracy": "Validation, robust accuracy",
    "validation_natural_accuracy": "Validation, natural accuracy",
    "train_robust_accuracy": "Training, accuracy under its own training attack",
    "train_natural_accuracy": "Training, natural accuracy",
    "guide_accuracy": "Training, guide's natural accuracy",
}
_NO_TERMS = ("fit", "epoch", "loss")


class Measure(NamedTuple):
    """What a chart shows.

    :param title: Of the chart.
    :param lines: Name of each line, its history and the column.
    :param unit: Label of the vertical axis.
    :param percent: Whether the column is a share in [0, 1] to be shown in percent.
    """

    title: str
    lines: Mapping[str, tuple[pandas.DataFrame, str]]
    unit: str
    percent: bool = False


def training_charts(histories: Mapping[str, pandas.DataFrame], styles: Mapping[str, int]) -> list[Chart]:
    """Accuracies, losses and learning rates over epochs.

    One run has a chart of all its accuracies and one of its loss terms; of several runs each accuracy and the loss have
    a chart with a line per run. Where several fits repeat epochs, rows are counted instead. More than 200 rows are
    thinned evenly.

    :param histories: A history per run.
    :param styles: The style of each run.
    """
    frames = {name: _thinned(frame) for name, frame in histories.items()}
    if len(frames) == 1:
        return [_chart(measure, {}) for measure in _of_one(*next(iter(frames.items()))) if measure.lines]
    return [_chart(measure, styles) for measure in _of_several(frames) if measure.lines]


def _of_several(frames: Mapping[str, pandas.DataFrame]) -> list[Measure]:
    def those_with(column: str) -> dict[str, tuple[pandas.DataFrame, str]]:
        """The runs that have a measure."""
        return {n: (f, column) for n, f in frames.items() if column in f and f[column].notna().any()}

    return [
        *(Measure(title, those_with(column), "accuracy (%)", True) for column, title in _SCORES.items()),
        Measure("Training loss, weighted sum of its terms", those_with("loss"), "loss"),
        Measure("Learning rate", those_with("learning_rate"), "learning rate"),
    ]


def _of_one(name: str, frame: pandas.DataFrame) -> list[Measure]:
    known = [str(c) for c in frame.columns if frame[c].notna().any()]
    # the terms stand before their sum
    terms = [c for c in known[: known.index("loss")] if c not in _NO_TERMS] if "loss" in known else []
    losses = {"loss": "weighted sum", **{term: term for term in terms}}
    rates = {"learning_rate": "learning rate", "guide_learning_rate": "guide's learning rate"}

    def lines(columns: Mapping[str, str]) -> dict[str, tuple[pandas.DataFrame, str]]:
        """The measures that the run has."""
        return {title: (frame, column) for column, title in columns.items() if column in known}

    return [
        Measure(f"{name}: accuracies", lines(_SCORES), "accuracy (%)", True),
        Measure(f"{name}: loss and its terms, each unweighted", lines(losses), "loss"),
        Measure(f"{name}: learning rate", lines(rates), "learning rate"),
    ]


def _chart(measure: Measure, styles: Mapping[str, int]) -> Chart:
    import pandas

    scale, write = (100.0, number) if measure.percent else (1.0, significant)
    made: list[Series] = []
    for name, (frame, column) in measure.lines.items():
        values = (frame[column].astype(float) * scale).tolist()
        made.append(Series(name, frame["number"].tolist(), values, style=styles.get(name, len(made))))
    columns = [pandas.Series(list(s.y), index=pandas.Index(list(s.x)), name=f"line {i}") for i, s in enumerate(made)]
    rows = pandas.concat(columns, axis=1).sort_index().rename_axis("epoch").reset_index()
    least = min(value for s in made for value in s.y if not math.isnan(value))
    bounds = charts.PERCENT if measure.percent else (min(least, 0.0), math.inf)
    unit = " (%)" if measure.percent else ""
    shown = [Column("epoch", "epoch", lambda epoch: str(int(epoch)))]
    shown += [Column(f"line {i}", f"{s.name}{unit}", write) for i, s in enumerate(made)]
    ends = "; ".join(
        f"{s.name}: {write(s.y[0])} in epoch {s.x[0]:g}, {write(s.y[-1])} in epoch {s.x[-1]:g}" for s in made
    )
    return charts.lines(
        measure.title, f"Lines over epochs. {ends}.", made, make_table(measure.title, rows, shown), x_label="epoch",
        y_label=measure.unit, y_bounds=bounds, whole_x=True,
    )  # fmt: skip


def _thinned(frame: pandas.DataFrame) -> pandas.DataFrame:
    """With the column ``number``: the epoch, or the count of rows where several fits repeat epochs."""
    numbers = frame["epoch"] if frame["epoch"].is_unique else range(1, len(frame) + 1)
    return frame.assign(number=list(numbers)).iloc[charts.thin(len(frame))]
