"""One self-contained HTML page: its sections, its tables, and the file; no script, no request, escaped throughout."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import numpy as np
import pandas

import art_lbgat
from art_lbgat.checks import check_kind, check_path
from art_lbgat.diagnostics.plots import class_title
from art_lbgat.evaluation import masking_report
from art_lbgat.files import write_text
from art_lbgat.report import figures
from art_lbgat.report.content import NORMS, Pictures, ReportContent, Results, as_results, pareto_front
from art_lbgat.report.figures import Drawing, Entry, Series

if TYPE_CHECKING:
    from art_lbgat.robustbench import Comparison

LIMIT_BYTES = 2_000_000
MINUS, MISSING, SPACE = "−", "–", "\u00a0"  # a space where no line breaks
NATURAL, ROBUST, EPS = "natural accuracy (%)", "robust accuracy (%)", "eps (input units)"
_LONG_TEXT = 30  # characters that need a wide column
_LONG_TABLE = 12  # rows that nobody reads from top to bottom
_QUESTION = "Which model is the most robust, and what does it cost in natural accuracy?"
_FLAGS = {
    "square stronger": "an attack without gradients broke more than 0.2 % that those with gradients had left, so these "
    "may have been misled",
    "zero gradients": "some gradients are exactly 0, which stops attacks that follow them",
    "few classes": "the attack had fewer target classes than the standard",
}
_SCORES = {
    "validation_robust_accuracy": "Validation, robust accuracy",
    "validation_natural_accuracy": "Validation, natural accuracy",
    "train_robust_accuracy": "Training, accuracy under its own training attack",
    "train_natural_accuracy": "Training, natural accuracy",
    "guide_accuracy": "Training, guide's natural accuracy",
}
Styles = Mapping[str, int]


class Table(NamedTuple):
    """Texts with headings; the first column names the row."""

    caption: str
    heads: tuple[str, ...]
    kinds: tuple[str, ...]  # "number" stands at the right, "wide" is for long texts
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[bool, ...]


class Chart(NamedTuple):
    """A drawing with its title, what a reader who does not see it should know, and its numbers."""

    kind: str  # its class: "chart" or "slice"
    key: str
    title: str
    alt: str
    drawing: Drawing
    table: Table


class Section(NamedTuple):
    """A part of the page; what is empty is not written."""

    slug: str
    title: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    legend: tuple[Entry, ...] = ()  # of all its charts
    charts: tuple[Chart, ...] = ()
    cards: tuple[tuple[str, tuple[dict[str, Any], ...]], ...] = ()  # titles, and pictures with what is under them
    commands: tuple[str, ...] = ()


def render_report(content: ReportContent) -> str:
    """The page as a text, the same for the same content; its policy forbids scripts, requests, forms and frames.

    :param content: What it says.
    :raises TypeError: If it is no :class:`ReportContent`.
    :raises ValueError: If it would be 2 MB or more, or its slices are no grid.
    """
    check_kind(content, "content", ReportContent)
    results = as_results(content.results, content.ours)
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("art_lbgat.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_writable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = pages.get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    page = pages.get_template("page.html.j2").render(
        title=str(content.title),  # a subclass of str may claim to be escaped
        question=_QUESTION,
        answers=_answer(results, content.threat, content.comparison),
        notes=content.notes,
        sections=_sections(content, results),
        style_hash=f"sha256-{digest}",
        version=art_lbgat.__version__,
    )
    size = len(page.encode("utf-8"))
    if size >= LIMIT_BYTES:
        most = f"content: expected a page under {LIMIT_BYTES:,} bytes, got {size:,}"
        raise ValueError(f"{most}; show fewer models or pictures, or slices of a lower resolution.")
    return page


def write_report(path: str | os.PathLike[str], content: ReportContent) -> Path:
    """Write the page; a file that is there is replaced as a whole or not at all.

    :param path: The HTML file; its folder is made.
    :param content: What it says.
    :return: The path.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: As :func:`render_report`.
    """
    target = check_path(path, "path")
    page = render_report(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
    return target


def _writable(value: Any) -> Any:
    """Characters that HTML or UTF-8 cannot hold become U+FFFD; what Jinja2 has escaped is left alone."""
    plain = isinstance(value, str) and not hasattr(value, "__html__")
    return figures.UNWRITABLE.sub("\ufffd", value) if plain else value


# Numbers as texts, and tables of them.


def text(value: Any) -> str:
    """Any value; nothing where it is missing."""
    return "" if _missing(value) else str(value)


def number(value: Any, decimals: int = 1) -> str:
    """A number with so many decimals."""
    return MISSING if _missing(value) else f"{round(float(value), decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def percent(value: Any) -> str:
    """A share in [0, 1] in percent."""
    return number(None if _missing(value) else 100 * float(value))


def published(value: Any) -> str:
    """A percentage as leaderboards write it."""
    return number(value, 2)


def significant(value: Any) -> str:
    """A number with four significant digits."""
    return MISSING if _missing(value) else f"{float(value):.4g}".replace("-", MINUS)


def whole(value: Any) -> str:
    """A count."""
    return MISSING if _missing(value) else f"{int(value):,}"


def interval(low: Any, high: Any) -> str:
    """``[95.1, 96.3]`` of shares in [0, 1], in percent; nothing where there is none."""
    return "" if _missing(low) or _missing(high) else f"[{percent(low)},{SPACE}{percent(high)}]"


def _missing(value: Any) -> bool:
    return value is None or value is pandas.NA or (isinstance(value, float) and math.isnan(value))


# Key in the DataFrame: heading, and how a number is written; None is for texts.
_COLUMNS: Mapping[str, tuple[str, Callable[[Any], str] | None]] = {
    "model_id": ("model", None), "accuracy": ("accuracy (%)", percent), "robust": (ROBUST, percent),
    "natural": (NATURAL, percent), "robust_acc": (ROBUST, published), "clean_acc": (NATURAL, published),
    "interval": ("95 % interval", text), "robust_interval": ("robust, 95 % interval", text),
    "natural_interval": ("natural, 95 % interval", text), "eps": (EPS, significant),
    "eps_measured": ("eps (inputs in [0, 1])", significant), "steps": ("steps", whole), "restarts": ("restarts", whole),
    "rank": ("rank", whole), "n": ("images", whole), "n_natural": ("images, natural", whole),
    "seconds": ("time (s)", number), "observed": ("observed", significant), "detail": ("what is compared", None),
    "front": ("none better in both", None),
}  # fmt: skip


def _table(caption: str, frame: pandas.DataFrame, keys: str, strong: Sequence[bool] = (), **own: Any) -> Table:
    """The columns that the frame has, in the order asked for; those not in ``_COLUMNS`` or ``own`` are texts."""
    heads, kinds, cells = [], [], []
    for key in (each for each in keys.split() if each in frame):
        head, write = own.get(key) or _COLUMNS.get(key, (key, None))
        cells.append([(write or text)(value) for value in frame[key]])
        long = max(map(len, cells[-1]), default=0) > _LONG_TEXT
        kinds.append("number" if write else "wide" if long else "")
        heads.append(head)
    marked = tuple(map(bool, strong)) or (False,) * len(frame)
    return Table(caption, tuple(heads), tuple(kinds), tuple(zip(*cells, strict=True)), marked)


def _with_interval(frame: pandas.DataFrame, before: str = "") -> pandas.DataFrame:
    """With a column that writes the interval down, where there is one."""
    if f"{before}low" not in frame or f"{before}high" not in frame:
        return frame
    ends = zip(frame[f"{before}low"], frame[f"{before}high"], strict=True)
    return frame.assign(**{f"{before}interval": [interval(low, high) for low, high in ends]})


# The answer, in plain words and from the numbers alone.


def _answer(results: Results, threat: str, comparison: Comparison | None) -> list[str]:
    """A sentence or two per line, the most important first."""
    rows = results.table.to_dict("records")
    ours, others = [r for r in rows if r["ours"]], [r for r in rows if not r["ours"]]
    best, under = rows[0], threat or results.attack
    which = "" if len(rows) == 1 else f" is the most robust of the {len(rows)} models judged here"
    said = [f"{best['model']}{which}: {_both(best)}{f' ({under})' if under else ''}."]
    compared = [ours[0], others[0]] if ours and others else rows[:2]
    if len(compared) == 2:
        said.append(_compared(compared[0], compared[1], best))
    natural = max(rows, key=lambda row: row["natural"])
    if all(natural is not row for row in (best, *compared)):
        said.append(f"The most accurate on natural images is {natural['model']}: {_both(natural)}.")
    if comparison is not None:
        said.append(
            f"On the RobustBench leaderboard {comparison.dataset} {comparison.threat_model}, {comparison.model_name} "
            f"ranks {whole(comparison.rank)} of {whole(comparison.of)} with {published(comparison.robust_acc)} % "
            f"(ranks {whole(comparison.best_rank)} to {whole(comparison.worst_rank)} by its 95 % interval); "
            f"{comparison.label}."
        )
    return said


def _both(row: dict[Any, Any]) -> str:
    said = []
    for kind in ("robust", "natural"):
        ends = interval(row[f"{kind}_low"], row[f"{kind}_high"])
        said.append(f"{percent(row[kind])}{SPACE}%{f' {ends}' if ends else ''} {kind}")
    return ", ".join(said)


def _compared(first: dict[Any, Any], second: dict[Any, Any], best: dict[Any, Any]) -> str:
    """The first against the second; numbers that the sentence before has said are not said again."""
    own, other = ("" if row is best else f" ({_both(row)})" for row in (first, second))
    robust, natural = (_points(first[kind], second[kind]) for kind in ("robust", "natural"))
    role = "baseline" if first["ours"] else "of the others"
    said = f"{first['model']}{own} against {second['model']}, the most robust {role}{other}: "
    said += f"{robust} robust, {natural} natural."
    low, high, other_low, other_high = (row[f"robust_{end}"] for row in (first, second) for end in ("low", "high"))
    if any(map(math.isnan, (low, high, other_low, other_high))):
        return said
    if low > other_high or other_low > high:
        return f"{said} The intervals of robust accuracy do not overlap."
    unclear = "so these numbers alone do not settle which of the two is more robust"
    return f"{said} The intervals of robust accuracy overlap, {unclear}."


def _points(first: float, second: float) -> str:
    difference = number(100 * first - 100 * second)
    sign = "" if difference.startswith(MINUS) or float(difference) == 0 else "+"
    return f"{sign}{difference} points"


def _warnings(results: Results) -> tuple[str, ...]:
    """What the evaluation says against a number, a line for models of which it says the same."""
    by: dict[str, list[str]] = {}
    for row in results.table.to_dict("records"):
        if isinstance(row["flags"], str) and row["flags"]:
            by.setdefault(row["flags"], []).append(str(row["model"]))
    said = []
    for flags, names in by.items():
        known = "; ".join(meaning for flag, meaning in _FLAGS.items() if flag in flags)
        said.append(f"{', '.join(names)}: {flags}{f' ({known})' if known else ''}")
    return tuple(said)


# The sections, in the order of the page.


def _sections(content: ReportContent, results: Results) -> list[Section]:
    """Those that have something to show."""
    table = results.table
    names = [*table["model"][table["ours"]], *table["model"][~table["ours"]], *content.histories]
    if content.curve is not None and "model" in content.curve:
        names += list(content.curve["model"])
    styles = {name: i for i, name in enumerate(dict.fromkeys(map(str, names)))}  # the same in every chart
    made = [_models(results, content.leaderboard, content.comparison, styles)]
    if content.attacks is not None:
        made.append(_attacks(content.attacks))
    if content.histories:
        made.append(Section("training", "Training", charts=tuple(_training(content.histories, styles))))
    if content.curve is not None:
        made.append(_curve(content.curve, styles))
    if content.per_class is not None:
        made.append(_classes(content.per_class, content.class_names))
    if content.pictures is not None:
        made.append(_pictures(content.pictures))
    if content.slices is not None:
        made.append(_slices(content.slices, content.class_names))
    if content.sanity is not None:
        made.append(_sanity(content.sanity))
    if content.provenance:
        made.append(_provenance(content.provenance))
    return made


def _models(results: Results, board: pandas.DataFrame | None, comparison: Comparison | None, styles: Styles) -> Section:
    """Natural against robust accuracy, as a scatter and as a table."""
    table = _with_interval(_with_interval(results.table, "natural_"), "robust_")
    table = table.assign(
        role=["ours" if ours else "baseline" for ours in table["ours"]],
        front=_on_front(list(table["natural"]), list(table["robust"])),
    )
    both_n = (table["n_natural"].notna() & (table["n_natural"] != table["n"])).any()
    shown = {"role": table["ours"].any(), "robust_interval": table["robust_interval"].any(),
             "natural_interval": table["natural_interval"].any(), "n": table["n"].notna().any(), "n_natural": both_n,
             "front": len(table) > 1}  # fmt: skip
    keys = "model role robust robust_interval natural natural_interval n n_natural front"
    keys = " ".join(key for key in keys.split() if shown.get(key, True))
    own = {"n": ("images, robust", whole)} if both_n else {}
    tables = [_table(f"Models, most robust first; {results.interval}", table, keys, list(table["ours"]), **own)]
    if comparison is not None:
        caption = f"RobustBench {comparison.dataset} {comparison.threat_model}: the rows around {comparison.model_name}"
        keys = "rank model_id robust_acc clean_acc eps_measured architecture"
        tables.append(_table(caption, comparison.around, keys, list(comparison.around["own"])))
    note = "Published models are shown as RobustBench reports them; they are a measure "
    notes = () if board is None else (note + "only for results on the same data, threat model and eps.",)
    chart = _scatter(table, tables[0], board, styles)
    return Section("models", "Natural and robust accuracy", notes, _warnings(results), tuple(tables), charts=(chart,))


def _scatter(table: pandas.DataFrame, shown: Table, board: pandas.DataFrame | None, styles: Styles) -> Chart:
    made = []
    for row in table.to_dict("records"):
        columns = ("natural", "robust", "robust_low", "robust_high", "natural_low", "natural_high")
        x, y, low, high, x_low, x_high = ([100 * float(row[column])] for column in columns)
        name = str(row["model"])
        made.append(Series(name, x, y, low, high, x_low, x_high, bool(row["ours"]), styles[name]))
    values = "; ".join(f"{s.name}: natural {number(s.x[0])}, robust {number(s.y[0])}" for s in made)
    title, alt = "Robust over natural accuracy", f"Scatter of robust over natural accuracy, both in percent. {values}"
    backdrop = None
    front = _front("Pareto front: no model here is better in both", [s.x[0] for s in made], [s.y[0] for s in made])
    if board is not None:
        name = f"RobustBench {board['dataset'].iloc[0]} {board['threat_model'].iloc[0]}"
        known = board[board["clean_acc"].notna() & board["robust_acc"].notna()]
        natural, robust = known["clean_acc"].astype(float).tolist(), known["robust_acc"].astype(float).tolist()
        backdrop = Series(f"{name}, {len(known)} published models", natural, robust)
        front = _front("Pareto front of the published models", natural, robust)
        known = known.assign(front=_on_front(natural, robust))
        best = published(max(robust, default=math.nan))
        title += f", with {name}"
        alt += f"; behind them the {len(known)} published models of {name}, robust up to {best}"
        keys = "model_id robust_acc clean_acc eps_measured front"
        shown = _table(f"{name}, {len(known)} published rows", known, keys, front=("on the front", None))
    several = len(front.x) > 0 and (board is not None or len(made) > 1)
    axes: dict[str, Any] = {"x_label": NATURAL, "y_label": ROBUST}
    drawing = figures.scatter("models-chart-1", made, backdrop=backdrop, front=front if several else None, **axes)
    return Chart("chart", "models-chart-1", title, f"{alt}.", drawing, shown)


def _on_front(xs: Sequence[float], ys: Sequence[float]) -> list[str]:
    front = pareto_front(xs, ys)
    return ["yes" if i in front else "no" for i in range(len(xs))]


def _front(name: str, xs: Sequence[float], ys: Sequence[float]) -> Series:
    front = pareto_front(xs, ys)
    return Series(name, [xs[i] for i in front], [ys[i] for i in front])


def _attacks(frame: pandas.DataFrame) -> Section:
    if "norm" in frame:
        frame = frame.assign(norm=[NORMS.get(str(norm), text(norm)) for norm in frame["norm"]])
    keys = "model attack accuracy interval norm eps steps restarts n seconds" + _flags(frame)
    note = "Every adversarial example was verified: inside the ball, inside the range of inputs, finite."
    table = _table("Accuracy under each attack", _with_interval(frame), keys)
    return Section("attacks", "All attacks", (note,), tables=(table,))


def _flags(frame: pandas.DataFrame) -> str:
    return " flags" if "flags" in frame and any(frame["flags"]) else ""


def _training(histories: Mapping[str, pandas.DataFrame], styles: Styles) -> list[Chart]:
    """Charts over epochs: of one run all accuracies and loss terms together, of several runs each with a line per run.

    Where several fits repeat epochs, rows are counted instead.
    """
    frames = {}
    for name, frame in histories.items():
        numbers = frame["epoch"] if frame["epoch"].is_unique else range(1, len(frame) + 1)
        frames[name] = frame.assign(number=list(numbers)).iloc[figures.thin(len(frame))]
    measures: list[tuple[str, str, dict[str, str]]]  # title, unit, column of each line
    if len(frames) == 1:
        ((name, frame),) = frames.items()
        known = [str(c) for c in frame.columns if frame[c].notna().any()]
        # the terms stand before their sum
        terms = [c for c in known[: known.index("loss")] if c not in ("fit", "epoch")] if "loss" in known else []
        losses = {"weighted sum": "loss", **{term: term for term in terms}}
        rates = {"learning rate": "learning_rate", "guide's learning rate": "guide_learning_rate"}
        measures = [
            (f"{name}: accuracies", "accuracy (%)", {title: column for column, title in _SCORES.items()}),
            (f"{name}: loss and its terms, each unweighted", "loss", losses),
            (f"{name}: learning rate", "learning rate", rates),
        ]
        frames, styles = dict.fromkeys([line for _, _, columns in measures for line in columns], frame), {}
    else:
        measures = [(title, "accuracy (%)", dict.fromkeys(frames, column)) for column, title in _SCORES.items()]
        measures.append(("Training loss, weighted sum of its terms", "loss", dict.fromkeys(frames, "loss")))
        measures.append(("Learning rate", "learning rate", dict.fromkeys(frames, "learning_rate")))
    made: list[Chart] = []
    for title, unit, columns in measures:
        lines = {line: (frames[line], column) for line, column in columns.items()
                 if column in frames[line] and frames[line][column].notna().any()}  # fmt: skip
        if lines:
            made.append(_training_chart(f"training-chart-{len(made) + 1}", title, unit, lines, styles))
    return made


def _training_chart(
    key: str, title: str, unit: str, lines: Mapping[str, tuple[pandas.DataFrame, str]], styles: Styles
) -> Chart:
    scale, sign, write = (100.0, " (%)", number) if "%" in unit else (1.0, "", significant)
    made: list[Series] = []
    for name, (frame, column) in lines.items():
        values = (frame[column].astype(float) * scale).tolist()
        made.append(Series(name, frame["number"].tolist(), values, style=styles.get(name, len(made))))
    columns = [pandas.Series(list(s.y), index=pandas.Index(list(s.x)), name=f"line_{i}") for i, s in enumerate(made)]
    rows = pandas.concat(columns, axis=1).sort_index().rename_axis("epoch").reset_index()
    least = min(value for s in made for value in s.y if not math.isnan(value))
    bounds = figures.PERCENT if sign else (min(least, 0.0), math.inf)
    heads: dict[str, Any] = {"epoch": ("epoch", lambda epoch: str(int(epoch)))}
    heads |= {f"line_{i}": (f"{s.name}{sign}", write) for i, s in enumerate(made)}
    ends = [f"{s.name}: {write(s.y[0])} in epoch {s.x[0]:g}, {write(s.y[-1])} in epoch {s.x[-1]:g}" for s in made]
    drawing = figures.lines(key, made, x_label="epoch", y_label=unit, y_bounds=bounds, whole_x=True)
    table = _table(title, rows, " ".join(heads), **heads)
    return Chart("chart", key, title, f"Lines over epochs. {'; '.join(ends)}.", drawing, table)


def _curve(frame: pandas.DataFrame, styles: Styles) -> Section:
    """Robust accuracy over eps."""
    frame = _with_interval(frame if "model" in frame else frame.assign(model="model"))
    series: list[Series] = []
    for name, rows in frame.groupby("model", sort=False):
        part = rows.sort_values("eps").astype({"eps": float, "accuracy": float})
        low, high = ((100 * part[c].to_numpy(float)).tolist() if c in part else [] for c in ("low", "high"))
        series.append(Series(str(name), part["eps"].tolist(), (100 * part["accuracy"]).tolist(), low, high,
                             style=styles.get(str(name), len(series))))  # fmt: skip
    attack = " / ".join(dict.fromkeys(map(str, frame["attack"]))) if "attack" in frame else "attack"
    norm = f"{NORMS.get(str(frame['norm'].iloc[-1]), '')}, ".lstrip(", ") if "norm" in frame else ""
    title, key = f"Robust accuracy over eps, {attack}", "curve-chart-1"
    ends = "; ".join(
        f"{s.name}: {number(s.y[0])} at eps {significant(s.x[0])}, {number(s.y[-1])} at {significant(s.x[-1])}"
        for s in series
    )
    drawing = figures.lines(key, series, x_label=f"eps ({norm}input units)", y_label=ROBUST, y_bounds=figures.PERCENT)
    alt = f"Lines of robust accuracy in percent over eps. {ends}."
    note = "A sample that is broken in a smaller ball counts as broken in every larger one; "
    note += "at large eps the curve must fall to about 0."
    note += " Bands are 95 % intervals over images (Wilson)." if "low" in frame else ""
    pairs = zip(frame["model"], frame["flags"], strict=True) if "flags" in frame else ()
    said = dict.fromkeys(f"{name}: {flags}" for name, flags in pairs if flags)
    keys = "model eps accuracy interval n" + _flags(frame)
    chart = Chart("chart", key, title, alt, drawing, _table(title, frame, keys, accuracy=(ROBUST, percent)))
    return Section("curve", "Robustness over eps", (note,), tuple(said), charts=(chart,))


def _classes(frame: pandas.DataFrame, class_names: Sequence[str]) -> Section:
    """Accuracy per class, a pair of columns for each model."""
    frame = frame if "model" in frame else frame.assign(model="")
    made = frame.drop_duplicates("class")[[c for c in ("class", "n") if c in frame]]
    columns: dict[str, Any] = {}
    for i, name in enumerate(dict.fromkeys(frame["model"])):
        part = frame[frame["model"] == name].drop_duplicates("class").set_index("class")
        for kind in ("robust", "natural"):
            if kind in part:
                made = made.assign(**{f"{kind}_{i}": made["class"].map(part[kind])})
                columns[f"{kind}_{i}"] = (f"{name} {kind} (%)".strip(), percent)
    made = made.assign(**{"class": [class_title(k, class_names) for k in made["class"]]})
    attacks = dict.fromkeys(map(str, frame["attack"])) if "attack" in frame else ()
    caption = f"Accuracy per class{'; robust is under ' if attacks else ''}{', '.join(attacks)}"
    return Section("classes", "Per class", tables=(_table(caption, made, " ".join(["class n", *columns]), **columns),))


def _pictures(pictures: Pictures) -> Section:
    """A card per image: it, its adversarial example and their difference."""
    low, high = pictures.clip_values
    x, x_adv = (np.asarray(each, dtype=np.float64) for each in (pictures.x, pictures.x_adv))
    differences, factor = figures.amplified_difference(x, x_adv, high - low)
    cards, rows = [], []
    for i, label in enumerate(np.asarray(pictures.y)):
        true = class_title(int(label), pictures.class_names)
        shown, said = [], []
        for kind, image, found in (("natural", x[i], pictures.predicted[i]),
                                   ("adversarial", x_adv[i], pictures.predicted_adv[i])):  # fmt: skip
            wrong = bool(found != label)
            said.append(f"{class_title(int(found), pictures.class_names)}{' (wrong)' if wrong else ''}")
            uri = figures.png_uri((image - low) / (high - low))
            alt = f"{kind} image {i + 1}, class {true}"
            shown.append({"uri": uri, "alt": alt, "label": f"{kind}: {said[-1]}", "wrong": wrong})
        alt = f"difference of the two images {i + 1}, amplified"
        uri, label = figures.png_uri(differences[i]), f"change ×{SPACE}{factor:.3g}"
        shown.append({"uri": uri, "alt": alt, "label": label, "wrong": False})
        cards.append((f"Image {i + 1}, class {true}", tuple(shown)))
        change = x_adv[i] - x[i]
        rows.append({"image": f"{i + 1}", "class": true, "natural": said[0], "adversarial": said[1],
                     "linf": float(np.abs(change).max()), "l2": float(np.linalg.norm(change))})  # fmt: skip
    by, how = (f" of {pictures.model}" if pictures.model else ""), f" ({pictures.attack})" if pictures.attack else ""
    note = f"Under each image stands the prediction{by}. The third picture is the change that makes the adversarial "
    note += f"example{how}, multiplied by {factor:.3g}, the same for all; grey is no change."
    if max(x.shape[2:]) > figures.LARGEST:
        note += f" Larger pictures are averaged down to {figures.LARGEST} pixels; "
        note += "the numbers are those of the whole images."
    table = _table(
        "Predictions and sizes of the changes", pandas.DataFrame(rows), "image class natural adversarial linf l2",
        natural=("natural prediction", None), adversarial=("adversarial prediction", None),
        linf=("largest change (input units)", significant), l2=("L2 change (input units)", significant),
    )  # fmt: skip
    return Section("pictures", "Natural and adversarial images", (note,), folded=(table,), cards=tuple(cards))


def _slices(frame: pandas.DataFrame, class_names: Sequence[str]) -> Section:
    """The decision regions of each model, with the share of the plane that each class takes."""
    drawings, legend = figures.slices("slices", frame, class_names)
    charts: list[Chart] = []
    for drawing, (name, part) in zip(drawings, frame.groupby("model", sort=False), strict=True):
        by_class = part.groupby("predicted").agg(share=("confidence", "size"), confidence=("confidence", "mean"))
        by_class["share"] /= len(part)
        by_class["title"] = [class_title(k, class_names) for k in by_class.index]
        alt = (
            f"Regions of {name} on the plane through three images: {len(by_class)} classes; class "
            f"{class_title(by_class['share'].idxmax(), class_names)} takes the largest share, "
            f"{percent(by_class['share'].max())} %."
        )
        table = _table(
            f"{name}: what each class takes of the plane", by_class, "title share confidence", title=("class", None),
            share=("share of the plane (%)", percent), confidence=("mean confidence (%)", percent),
        )  # fmt: skip
        charts.append(Chart("slice", f"slices-{len(charts)}", str(name), alt, drawing, table))
    note = (
        "The plane through three images, coloured by the predicted class, stronger where the model is surer. Black "
        "lines are decision boundaries, markers the three images; distances are L2 in input units."
    )
    if "inside" in frame and not frame["inside"].all():
        note += " Outside the white line there are no valid images."
    return Section("slices", "Decision boundaries", (note,), legend=legend, charts=tuple(charts))


def _sanity(frame: pandas.DataFrame) -> Section:
    passed = [bool(value) for value in frame["passed"]]
    frame = frame.assign(result=[f"✓{SPACE}pass" if each else f"✗{SPACE}FAIL" for each in passed])
    if "expected" in frame:
        frame = frame.assign(expected=[str(each).replace("<=", "≤") for each in frame["expected"]])
    of = f", {' / '.join(dict.fromkeys(map(str, frame['model'])))}" if "model" in frame else ""
    keys = "check result observed expected detail"
    table = _table(f"Whether the attacks can be believed{of}", frame, keys, [not each for each in passed])
    if {"observed", "expected", "detail"} <= set(frame.columns):
        first, *more = (line.removeprefix("- ") for line in masking_report(frame).split("\n"))
    else:
        first, *more = [f"{sum(passed)} of {len(passed)} checks passed."]
    notes, warned = ((first,), ()) if all(passed) else ((), (first, *more))
    return Section("sanity", "Sanity checks", notes, warned, tables=(table,))


def _provenance(provenance: Mapping[str, Any]) -> Section:
    given = {str(key): value for key, value in provenance.items()}
    commands = given.pop("commands", ())
    commands = [commands] if isinstance(commands, str) else list(commands)
    plain = {key: value for key, value in given.items() if not isinstance(value, Mapping)}
    groups = ({"general": plain} if plain else {}) | {k: v for k, v in given.items() if k not in plain}
    tables = [_table(title, pandas.DataFrame(_flat(values), columns=["name", "value"]), "name value")
              for title, values in groups.items()]  # fmt: skip
    short, long = (tuple(t for t in tables if (len(t.rows) > _LONG_TABLE) == folded) for folded in (False, True))
    return Section("provenance", "Provenance", tables=short, folded=long, commands=tuple(map(str, commands)))


def _flat(values: Mapping[Any, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested mappings as rows with dotted names; lists on one line."""
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{key}.")
        else:
            several = isinstance(value, Sequence) and not isinstance(value, str)
            rows.append((f"{before}{key}", ", ".join(map(str, value)) if several else str(value)))
    return rows
