"""The sections of accuracies: the models beside the leaderboard, every attack, the curve over eps, the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from art_lbgat.report import charts
from art_lbgat.report.answer import warnings
from art_lbgat.report.charts import Chart, Series
from art_lbgat.report.content import class_title
from art_lbgat.report.results import Results, pareto_front
from art_lbgat.report.section import Section
from art_lbgat.report.tables import Column, Table, interval, make_table, number, percent, published, significant, text
from art_lbgat.report.tables import whole as count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas

    from art_lbgat.robustbench import Comparison

Styles = Mapping[str, int]
NATURAL, ROBUST = "natural accuracy (%)", "robust accuracy (%)"
_EPS = "eps (input units)"
_BOARD_EPS = "eps (inputs in [0, 1])"
_LIKE_FOR_LIKE = (
    "Published models are shown as RobustBench reports them; they are a measure only for results on the same data, "
    "threat model and eps."
)
_NORMS = {"inf": "Linf", "2": "L2"}


def models_section(
    results: Results, leaderboard: pandas.DataFrame | None, comparison: Comparison | None, styles: Styles
) -> Section:
    """Natural against robust accuracy, as a scatter and as a table.

    :param results: The models.
    :param leaderboard: Published rows to draw behind them, or None.
    :param comparison: Where one of the models stands, or None.
    :param styles: The style of each model.
    """
    table = with_interval(with_interval(results.table, "natural"), "robust")
    front = pareto_front(list(table["natural"]), list(table["robust"]))
    table = table.assign(
        role=["ours" if ours else "baseline" for ours in table["ours"]],
        front=["yes" if i in front else "no" for i in range(len(table))],
    )
    columns = [
        Column("model", "model"),
        *([Column("role", "role")] if table["ours"].any() else []),
        Column("robust", ROBUST, percent),
        *([Column("robust_interval", "robust, 95 % interval", text)] if table["robust_interval"].any() else []),
        Column("natural", NATURAL, percent),
        *([Column("natural_interval", "natural, 95 % interval", text)] if table["natural_interval"].any() else []),
        *_counts(table),
        *([Column("front", "none better in both")] if len(table) > 1 else []),
    ]
    shown = make_table(f"Models, most robust first; {results.interval}", table, columns, list(table["ours"]))
    around = () if comparison is None else (_around(comparison),)
    chart = _scatter(table, shown, leaderboard, styles)
    notes = () if leaderboard is None else (_LIKE_FOR_LIKE,)
    return Section("models", "Natural and robust accuracy", notes, warnings=tuple(warnings(results)), charts=(chart,),
                   tables=(shown, *around))  # fmt: skip


def _counts(table: pandas.DataFrame) -> list[Column]:
    """Columns of the number of images: one, or one for each accuracy where they differ."""
    known = table["n_natural"].notna() & (table["n_natural"] != table["n"])
    if known.any():
        return [Column("n", "images, robust", count), Column("n_natural", "images, natural", count)]
    return [Column("n", "images", count)] if table["n"].notna().any() else []


def attacks_section(frame: pandas.DataFrame) -> Section:
    """Every attack.

    :param frame: The table of :func:`~art_lbgat.evaluation.evaluate`.
    """
    columns = [
        Column("model", "model"), Column("attack", "attack"), Column("accuracy", "accuracy (%)", percent),
        Column("interval", "95 % interval", text), Column("norm", "norm"),
        Column("eps", _EPS, significant), Column("steps", "steps", count), Column("restarts", "restarts", count),
        Column("n", "images", count), Column("seconds", "time (s)", number),
    ]  # fmt: skip
    if "norm" in frame:
        frame = frame.assign(norm=[_NORMS.get(str(norm), text(norm)) for norm in frame["norm"]])
    if "flags" in frame and any(frame["flags"]):
        columns.append(Column("flags", "flags"))
    note = "Every adversarial example was verified: inside the ball, inside the range of inputs, finite."
    table = make_table("Accuracy under each attack", with_interval(frame), columns)
    return Section("attacks", "All attacks", (note,), tables=(table,))


def curve_section(frame: pandas.DataFrame, styles: Styles) -> Section:
    """Robust accuracy over eps.

    :param frame: The table of :func:`~art_lbgat.evaluation.robustness_curve`.
    :param styles: The style of each model.
    """
    frame = with_interval(frame if "model" in frame else frame.assign(model="model"))
    series: list[Series] = []
    for name, rows in frame.groupby("model", sort=False):
        part = rows.sort_values("eps").astype({"eps": float, "accuracy": float})
        low, high = ((100 * part[c].to_numpy(float)).tolist() if c in part else [] for c in ("low", "high"))
        series.append(Series(str(name), part["eps"].tolist(), (100 * part["accuracy"]).tolist(), low, high,
                             style=styles.get(str(name), len(series))))  # fmt: skip
    attack = " / ".join(dict.fromkeys(map(str, frame["attack"]))) if "attack" in frame else "attack"
    norm = f"{_NORMS.get(str(frame['norm'].iloc[-1]), '')}, ".lstrip(", ") if "norm" in frame else ""
    title = f"Robust accuracy over eps, {attack}"
    ends = [
        f"{s.name}: {number(s.y[0])} at eps {significant(s.x[0])}, {number(s.y[-1])} at {significant(s.x[-1])}"
        for s in series
    ]
    columns = [
        Column("model", "model"), Column("eps", _EPS, significant), Column("accuracy", ROBUST, percent),
        Column("interval", "95 % interval", text), Column("n", "images", count), Column("flags", "flags"),
    ]  # fmt: skip
    flagged = "flags" in frame and any(frame["flags"])
    chart = charts.lines(
        title, f"Lines of robust accuracy in percent over eps. {'; '.join(ends)}.", series,
        make_table(title, frame, columns if flagged else columns[:-1]),
        x_label=f"eps ({norm}input units)", y_label=ROBUST, y_bounds=charts.PERCENT,
    )  # fmt: skip
    pairs = zip(frame["model"], frame["flags"], strict=True) if flagged else ()
    note = (
        "A sample that is broken in a smaller ball counts as broken in every larger one; at large eps the curve must "
        "fall to about 0."
    )
    bands = " Bands are 95 % intervals over images (Wilson)." if "low" in frame else ""
    said = dict.fromkeys(f"{name}: {flags}" for name, flags in pairs if flags)
    return Section("curve", "Robustness over eps", (note + bands,), tuple(said), charts=(chart,))


def classes_section(frame: pandas.DataFrame, class_names: Sequence[str]) -> Section:
    """Accuracy per class, a pair of columns for each model.

    :param frame: Columns ``class`` and any of ``model``, ``n``, ``natural``, ``robust``, ``attack``.
    :param class_names: A name for each class, or nothing.
    """
    frame = frame if "model" in frame else frame.assign(model="")
    models = list(dict.fromkeys(frame["model"]))
    made = frame.drop_duplicates("class")[[c for c in ("class", "n") if c in frame]]
    columns = [Column("class", "class"), Column("n", "images", count)]
    for i, name in enumerate(models):
        part = frame[frame["model"] == name].drop_duplicates("class").set_index("class")
        for kind in ("robust", "natural"):
            if kind in part:
                made = made.assign(**{f"{kind} {i}": made["class"].map(part[kind])})
                columns.append(Column(f"{kind} {i}", f"{name} {kind} (%)".strip(), percent))
    made = made.assign(**{"class": [class_title(k, class_names) for k in made["class"]]})
    attacks = dict.fromkeys(map(str, frame["attack"])) if "attack" in frame else ()
    caption = f"Accuracy per class{'; robust is under ' if attacks else ''}{', '.join(attacks)}"
    return Section("classes", "Per class", tables=(make_table(caption, made, columns),))


def with_interval(frame: pandas.DataFrame, kind: str = "") -> pandas.DataFrame:
    """With a column that writes the interval down, where there is one.

    :param frame: A table with ``low`` and ``high``, or ``<kind>_low`` and ``<kind>_high``.
    :param kind: Which accuracy; empty for the only one.
    """
    before = f"{kind}_" if kind else ""
    if f"{before}low" not in frame or f"{before}high" not in frame:
        return frame
    ends = zip(frame[f"{before}low"], frame[f"{before}high"], strict=True)
    return frame.assign(**{f"{before}interval": [interval(low, high) for low, high in ends]})


def _scatter(table: pandas.DataFrame, shown: Table, board: pandas.DataFrame | None, styles: Styles) -> Chart:
    made = []
    for row in table.to_dict("records"):
        x, y, low, high, x_low, x_high = (
            [100 * float(row[name])]
            for name in ("natural", "robust", "robust_low", "robust_high", "natural_low", "natural_high")
        )
        name = str(row["model"])
        made.append(Series(name, x, y, low, high, x_low, x_high, bool(row["ours"]), styles[name]))
    values = "; ".join(f"{s.name}: natural {number(s.x[0])}, robust {number(s.y[0])}" for s in made)
    alt = f"Scatter of robust over natural accuracy, both in percent. {values}"
    title = "Robust over natural accuracy"
    if board is None:
        xs, ys = _front([s.x[0] for s in made], [s.y[0] for s in made])
        front = Series("Pareto front: no model here is better in both", xs, ys) if len(made) > 1 else None
        return charts.scatter(title, f"{alt}.", made, shown, x_label=NATURAL, y_label=ROBUST, front=front)
    name = f"RobustBench {board['dataset'].iloc[0]} {board['threat_model'].iloc[0]}"
    known = board[board["clean_acc"].notna() & board["robust_acc"].notna()]
    every = known["clean_acc"].astype(float).tolist(), known["robust_acc"].astype(float).tolist()
    chosen = pareto_front(*every)
    known = known.assign(front=["yes" if i in chosen else "no" for i in range(len(known))])
    columns = [Column("model_id", "model"), Column("robust_acc", ROBUST, published),
               Column("clean_acc", NATURAL, published), Column("eps_measured", _BOARD_EPS, significant),
               Column("front", "on the front")]  # fmt: skip
    best = number(max(every[1], default=np.nan), 2)
    return charts.scatter(
        f"{title}, with {name}",
        f"{alt}; behind them the {len(known)} published models of {name}, robust up to {best}.", made,
        make_table(f"{name}, {len(known)} published rows", known, columns),
        backdrop=Series(f"{name}, {len(known)} published models", *every),
        front=Series("Pareto front of the published models", *_front(*every)) if len(known) else None,
        x_label=NATURAL, y_label=ROBUST,
    )  # fmt: skip


def _front(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    front = pareto_front(xs, ys)
    return [xs[i] for i in front], [ys[i] for i in front]


def _around(comparison: Comparison) -> Table:
    columns = [Column("rank", "rank", count), Column("model_id", "model"), Column("robust_acc", ROBUST, published),
               Column("clean_acc", NATURAL, published), Column("eps_measured", _BOARD_EPS, significant),
               Column("architecture", "architecture")]  # fmt: skip
    caption = f"RobustBench {comparison.dataset} {comparison.threat_model}: the rows around {comparison.model_name}"
    return make_table(caption, comparison.around, columns, list(comparison.around["own"]))
