"""One self-contained HTML page: its sections, its tables, and the file; no script, no request, escaped throughout."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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

LIMIT_BYTES = 2_000_000
MINUS, MISSING, SPACE = "−", "–", "\u00a0"  # a space where no line breaks
NATURAL, ROBUST = "natural accuracy (%)", "robust accuracy (%)"
_LONG_TEXT = 30  # characters that need a wide column
_LONG_TABLE = 12  # rows that nobody reads from top to bottom
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
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()
    legend: Sequence[Entry] = ()  # of all its charts
    charts: Sequence[Chart] = ()
    cards: Sequence[Mapping[str, Any]] = ()  # of pictures
    commands: Sequence[str] = ()


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
    digest = hashlib.sha256(pages.get_template("style.css").render().encode()).digest()
    page = pages.get_template("page.html.j2").render(
        title=str(content.title),  # a subclass of str may claim to be escaped
        answers=_answer(results, content),
        notes=content.notes,
        sections=_sections(content, results),
        style_hash=f"sha256-{base64.b64encode(digest).decode('ascii')}",
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


def _writer(form: str, scale: float = 1.0) -> Callable[[Any], str]:
    """How numbers of one kind are written; a dash where one is missing, and no minus before 0."""

    def write(value: Any) -> str:
        if pandas.isna(value):
            return MISSING
        written = format(scale * float(value), form)
        return written.replace("-", MINUS) if written.strip("-0.") else written.lstrip("-")

    return write


number, significant, whole = _writer(".1f"), _writer(".4g"), _writer(",.0f")
percent = _writer(".1f", 100)  # of shares in [0, 1]
published = _writer(".2f")  # as leaderboards write percentages


def text(value: Any) -> str:
    """Any value; nothing where it is missing."""
    return "" if pandas.isna(value) is True else str(value)


def interval(low: Any, high: Any) -> str:
    """``[95.1, 96.3]`` of shares in [0, 1], in percent; nothing where there is none."""
    return "" if pandas.isna(low) or pandas.isna(high) else f"[{percent(low)},{SPACE}{percent(high)}]"


# Key in the DataFrame: heading, and how a number is written; None is for texts.
_COLUMNS: Mapping[str, tuple[str, Callable[[Any], str] | None]] = {
    "model_id": ("model", None), "accuracy": ("accuracy (%)", percent), "robust": (ROBUST, percent),
    "natural": (NATURAL, percent), "robust_acc": (ROBUST, published), "clean_acc": (NATURAL, published),
    "interval": ("95 % interval", text), "robust_interval": ("robust, 95 % interval", text),
    "natural_interval": ("natural, 95 % interval", text), "eps": ("eps (input units)", significant),
    "eps_measured": ("eps (inputs in [0, 1])", significant), "steps": ("steps", whole), "restarts": ("restarts", whole),
    "rank": ("rank", whole), "n": ("images", whole), "n_natural": ("images, natural", whole),
    "seconds": ("time (s)", number), "observed": ("observed", significant), "detail": ("what is compared", None),
    "front": ("none better in both", None),
}  # fmt: skip


def _table(caption: str, frame: pandas.DataFrame, keys: str, strong: Iterable[bool] = (), **own: Any) -> Table:
    """The columns that hold something, in the order asked for; those not in ``_COLUMNS`` or ``own`` are texts."""
    columns = []
    for key in (each for each in keys.split() if each in frame):
        head, write = own.get(key) or _COLUMNS.get(key, (key, None))
        cells = [(write or text)(value) for value in frame[key]]
        longest = max(map(len, cells), default=1)
        if longest:
            columns.append((head, "number" if write else "wide" if longest > _LONG_TEXT else "", cells))
    heads, kinds, cells_of = zip(*columns, strict=True)
    return Table(caption, heads, kinds, tuple(zip(*cells_of, strict=True)), tuple(strong) or (False,) * len(frame))


def _with_interval(frame: pandas.DataFrame, before: str = "") -> pandas.DataFrame:
    """With a column that writes the interval down, where there is one."""
    if f"{before}low" not in frame or f"{before}high" not in frame:
        return frame
    return frame.assign(**{f"{before}interval": list(map(interval, frame[f"{before}low"], frame[f"{before}high"]))})


# The answer, in plain words and from the numbers alone.


def _answer(results: Results, content: ReportContent) -> list[str]:
    """A sentence or two per line, the most important first."""
    differences, comparison = content.differences, content.comparison
    rows = results.table.to_dict("records")
    ours, others = [r for r in rows if r["ours"]], [r for r in rows if not r["ours"]]
    best, under = rows[0], content.threat or results.attack
    which = "" if len(rows) == 1 else f" is the most robust of the {len(rows)} models judged here"
    said = [] if differences is None else [_real(differences)]
    said.append(f"{best['model']}{which}: {_both(best)}{f' ({under})' if under else ''}.")
    compared = [ours[0], others[0]] if ours and others else rows[:2]
    if len(compared) == 2:
        said.append(_compared(compared[0], compared[1], best, paired=differences is not None))
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


def _both(row: Mapping[Any, Any]) -> str:
    ends = {kind: interval(row[f"{kind}_low"], row[f"{kind}_high"]) for kind in ("robust", "natural")}
    return ", ".join(f"{percent(row[kind])}{SPACE}%{f' {each}' if each else ''} {kind}" for kind, each in ends.items())


def _real(differences: pandas.DataFrame) -> str:
    """Which differences of one model to the others are larger than chance."""
    model, seeds = differences["model"].iloc[0], int(differences["seeds"].min())
    where = "the same images, one training each" if seeds == 1 else f"the same images and {seeds} seeds"
    real, points = differences[differences["real"]], []
    if real.empty:
        return f"No difference of {model} to another model is real: on {where}, every 95 % interval contains 0."
    for kind, words in (("robust", "robust"), ("natural", "accurate on natural images")):
        for degree, sign in (("more", 1), ("less", -1)):
            rows = real[(real["kind"] == kind) & (sign * real["value"] > 0)]
            ends = [interval(*sorted(map(abs, each))) for each in zip(rows["low"], rows["high"], strict=True)]
            by = zip(rows["other"], map(percent, abs(rows["value"])), ends, strict=True)
            named = [f"{other} (by {value} points {each})" for other, value, each in by]
            points += [f"{degree} {words} than {', '.join(named)}"] if named else []
    rest = "" if len(real) == len(differences) else " No other difference of it is: the 95 % intervals contain 0."
    return f"Real differences, on {where}: {model} is {'; '.join(points)}.{rest}"


def _compared(first: Mapping[Any, Any], second: Mapping[Any, Any], best: Mapping[Any, Any], *, paired: bool) -> str:
    """The first against the second; numbers that the sentence before has said are not said again."""
    own, other = ("" if row is best else f" ({_both(row)})" for row in (first, second))
    points = []
    for kind in ("robust", "natural"):
        difference = number(100 * first[kind] - 100 * second[kind])
        sign = "" if difference.startswith(MINUS) or difference == "0.0" else "+"
        points.append(f"{sign}{difference} points {kind}")
    role = "baseline" if first["ours"] else "of the others"
    said = f"{first['model']}{own} against {second['model']}, the most robust {role}{other}: {', '.join(points)}."
    low, high, other_low, other_high = (row[f"robust_{end}"] for row in (first, second) for end in ("low", "high"))
    if paired or any(map(math.isnan, (low, high, other_low, other_high))):
        return said
    if low > other_high or other_low > high:
        return f"{said} The intervals of robust accuracy do not overlap."
    unclear = "so these numbers alone do not settle which of the two is more robust"
    return f"{said} The intervals of robust accuracy overlap, {unclear}."


# The sections, in the order of the page.


def _sections(content: ReportContent, results: Results) -> list[Section]:
    """Those that have something to show."""
    curve, table = content.curve, results.table.sort_values("ours", ascending=False, kind="stable")
    names = [*table["model"], *content.histories, *(curve["model"] if curve is not None and "model" in curve else ())]
    styles = {name: i for i, name in enumerate(dict.fromkeys(map(str, names)))}  # the same in every chart
    parts: list[tuple[Any, Callable[..., Section], tuple[Any, ...]]] = [
        (content.attacks, _attacks, ()),
        (content.histories or None, _training, (styles,)),
        (curve, _curve, (styles,)),
        (content.per_class, _classes, (content.class_names,)),
        (content.pictures, _pictures, ()),
        (content.slices, _slices, (content.class_names,)),
        (content.sanity, _sanity, ()),
        (content.provenance or None, _provenance, ()),
    ]
    first = _models(results, content, styles)
    return [first, *(make(given, *more) for given, make, more in parts if given is not None)]


def _models(results: Results, content: ReportContent, styles: Styles) -> Section:
    """Natural against robust accuracy, as a scatter and as a table, with what the evaluation says against a number."""
    board, comparison, differences = content.leaderboard, content.comparison, content.differences
    table = _with_interval(_with_interval(results.table, "natural_"), "robust_")
    both_n = (table["n_natural"].notna() & (table["n_natural"] != table["n"])).any()
    shown = table.assign(
        role=np.where(table["ours"], "ours", "baseline") if table["ours"].any() else "",
        front=_on_front(list(table["natural"]), list(table["robust"])) if len(table) > 1 else "",
        n_natural=table["n_natural"] if both_n else None,
    )
    keys = "model role robust robust_interval natural natural_interval n n_natural front"
    own = {"n": ("images, robust", whole)} if both_n else {}
    caption = f"Models, most robust first; {results.interval}"
    tables = [_table(caption, shown.dropna(axis="columns", how="all"), keys, table["ours"], **own)]
    if differences is not None:
        few, subject = int(differences["seeds"].min()), differences["model"].iloc[0]
        over = "images alone, of one training each" if few == 1 else f"images and {few} seeds"
        caption = f"{subject} less each other model, in points, on the same images; 95 % intervals over {over}"
        frame = _with_interval(differences.assign(real=np.where(differences["real"], "yes", "no")))
        tables.append(_table(caption, frame, "other kind value interval real", value=("difference", percent)))
    if comparison is not None:
        caption = f"RobustBench {comparison.dataset} {comparison.threat_model}: the rows around {comparison.model_name}"
        keys = "rank model_id robust_acc clean_acc eps_measured architecture"
        tables.append(_table(caption, comparison.around, keys, comparison.around["own"]))
    note = "Published models are shown as RobustBench reports them; they are a measure only for results on the same "
    notes = () if board is None else (f"{note}data, threat model and eps.",)
    warned = []
    for flags, part in table[table["flags"] != ""].groupby("flags", sort=False):
        known = "; ".join(meaning for flag, meaning in _FLAGS.items() if flag in str(flags))
        warned.append(f"{', '.join(map(str, part['model']))}: {flags}{f' ({known})' if known else ''}")
    chart = _scatter(table, tables[0], board, styles)
    return Section("models", "Natural and robust accuracy", notes, warned, tables, charts=(chart,))


def _scatter(table: pandas.DataFrame, shown: Table, board: pandas.DataFrame | None, styles: Styles) -> Chart:
    made = []
    for row in table.to_dict("records"):
        columns = ("natural", "robust", "robust_low", "robust_high", "natural_low", "natural_high")
        x, y, low, high, x_low, x_high = ([100 * float(row[column])] for column in columns)
        name = str(row["model"])
        made.append(Series(name, x, y, low, high, x_low, x_high, bool(row["ours"]), styles[name]))
    values = "; ".join(f"{s.name}: natural {number(s.x[0])}, robust {number(s.y[0])}" for s in made)
    title, alt = "Robust over natural accuracy", f"Scatter of robust over natural accuracy, both in percent. {values}"
    border, backdrop = "Pareto front: no model here is better in both", None
    natural, robust = [s.x[0] for s in made], [s.y[0] for s in made]
    if board is not None:
        name = f"RobustBench {board['dataset'].iloc[0]} {board['threat_model'].iloc[0]}"
        known = board[board["clean_acc"].notna() & board["robust_acc"].notna()]
        natural, robust = known["clean_acc"].astype(float).tolist(), known["robust_acc"].astype(float).tolist()
        border = "Pareto front of the published models"
        backdrop = Series(f"{name}, {len(known)} published models", natural, robust)
        title += f", with {name}"
        alt += f"; behind them the {len(known)} published models of {name}, "
        alt += f"robust up to {published(max(robust, default=math.nan))}"
        keys = "model_id robust_acc clean_acc eps_measured front"
        known = known.assign(front=_on_front(natural, robust))
        shown = _table(f"{name}, {len(known)} published rows", known, keys, front=("on the front", None))
    ends = pareto_front(natural, robust)
    several = ends and (board is not None or len(made) > 1)
    front = Series(border, [natural[i] for i in ends], [robust[i] for i in ends]) if several else None
    axes = {"x_label": NATURAL, "y_label": ROBUST}
    drawing = figures.scatter("models-chart-1", made, backdrop=backdrop, front=front, **axes)
    return Chart("chart", "models-chart-1", title, f"{alt}.", drawing, shown)


def _on_front(xs: Sequence[float], ys: Sequence[float]) -> list[str]:
    front = pareto_front(xs, ys)
    return ["yes" if i in front else "no" for i in range(len(xs))]


def _attacks(frame: pandas.DataFrame) -> Section:
    if "norm" in frame:
        frame = frame.assign(norm=[NORMS.get(str(norm), text(norm)) for norm in frame["norm"]])
    keys = "model attack accuracy interval norm eps steps restarts n seconds flags"
    note = "Every adversarial example was verified: inside the ball, inside the range of inputs, finite."
    table = _table("Accuracy under each attack", _with_interval(frame), keys)
    return Section("attacks", "All attacks", (note,), tables=(table,))


def _training(histories: Mapping[str, pandas.DataFrame], styles: Styles) -> Section:
    """Charts over epochs: of one run all accuracies and loss terms together, of several runs each with a line per run.

    Where several fits repeat epochs, rows are counted instead.
    """
    frames = {}
    for name, frame in histories.items():
        numbers = frame["epoch"] if frame["epoch"].is_unique else range(1, len(frame) + 1)
        frames[name] = frame.set_index(pandas.Index(numbers, name="number")).iloc[figures.thin(len(frame))]
    (name, first), *others = frames.items()
    if others:
        titles = {**_SCORES, "loss": "Training loss, weighted sum of its terms", "learning_rate": "Learning rate"}
        lines = {title: {k: frame.get(column) for k, frame in frames.items()} for column, title in titles.items()}
    else:
        before = [*first.columns][: [*first.columns].index("loss")] if "loss" in first else []  # its terms
        terms = {"loss": "weighted sum"} | {term: term for term in before if term not in ("fit", "epoch")}
        rates = {"learning_rate": "learning rate", "guide_learning_rate": "guide's learning rate"}
        parts = {"accuracies": _SCORES, "loss and its terms, each unweighted": terms, "learning rate": rates}
        lines = {f"{name}: {title}": {line: first.get(column) for column, line in columns.items()}
                 for title, columns in parts.items()}  # fmt: skip
        styles = {}
    charts: list[Chart] = []
    for title, found in lines.items():
        known = {line: values for line, values in found.items() if values is not None and values.notna().any()}
        if known:
            charts.append(_training_chart(f"training-chart-{len(charts) + 1}", title, known, styles))
    return Section("training", "Training", charts=charts)


def _training_chart(key: str, title: str, lines: Mapping[str, pandas.Series[Any]], styles: Styles) -> Chart:
    """Lines over epochs, which are the indices."""
    column = str(next(iter(lines.values())).name)
    unit = "accuracy (%)" if column in _SCORES else "learning rate" if column.endswith("learning_rate") else "loss"
    scale, sign, write = (100.0, " (%)", number) if "%" in unit else (1.0, "", significant)
    rows = pandas.DataFrame({name: values.astype(float) * scale for name, values in lines.items()})
    made = []
    for i, (name, values) in enumerate(lines.items()):
        y = rows[name].reindex(values.index)
        made.append(Series(name, y.index.tolist(), y.tolist(), style=styles.get(name, i)))
    bounds = figures.PERCENT if sign else (min(0.0, rows.min().min()), math.inf)
    ends = [f"{s.name}: {write(s.y[0])} in epoch {s.x[0]:g}, {write(s.y[-1])} in epoch {s.x[-1]:g}" for s in made]
    drawing = figures.lines(key, made, x_label="epoch", y_label=unit, y_bounds=bounds, whole_x=True)
    heads: dict[str, Any] = {f"line_{i}": (f"{s.name}{sign}", write) for i, s in enumerate(made)}
    rows.columns = pandas.Index(list(heads))
    rows["epoch"] = [f"{epoch:.0f}" for epoch in rows.index]
    table = _table(title, rows, " ".join(["epoch", *heads]), epoch=("epoch", text), **heads)
    return Chart("chart", key, title, f"Lines over epochs. {'; '.join(ends)}.", drawing, table)


def _curve(frame: pandas.DataFrame, styles: Styles) -> Section:
    """Robust accuracy over eps."""
    frame = _with_interval(frame if "model" in frame else frame.assign(model="model"))
    series: list[Series] = []
    for name, rows in frame.groupby("model", sort=False):
        part = rows.sort_values("eps")
        columns = ("accuracy", "low", "high")
        y, low, high = ((100 * part[c].astype(float)).tolist() if c in part else [] for c in columns)
        style = styles.get(str(name), len(series))
        series.append(Series(str(name), part["eps"].astype(float).tolist(), y, low, high, style=style))
    attack = " / ".join(dict.fromkeys(map(str, frame["attack"]))) if "attack" in frame else "attack"
    norm = NORMS.get(str(frame["norm"].iloc[-1]), "") if "norm" in frame else ""
    title, key = f"Robust accuracy over eps, {attack}", "curve-chart-1"
    ends = "; ".join(
        f"{s.name}: {number(s.y[0])} at eps {significant(s.x[0])}, {number(s.y[-1])} at {significant(s.x[-1])}"
        for s in series
    )
    label = f"eps ({norm}, input units)" if norm else "eps (input units)"
    drawing = figures.lines(key, series, x_label=label, y_label=ROBUST, y_bounds=figures.PERCENT)
    alt = f"Lines of robust accuracy in percent over eps. {ends}."
    note = "A sample that is broken in a smaller ball counts as broken in every larger one; "
    note += "at large eps the curve must fall to about 0."
    note += " Bands are 95 % intervals over images (Wilson)." if "low" in frame else ""
    pairs = zip(frame["model"], frame["flags"], strict=True) if "flags" in frame else ()
    said = list(dict.fromkeys(f"{name}: {flags}" for name, flags in pairs if flags))
    table = _table(title, frame, "model eps accuracy interval n flags", accuracy=(ROBUST, percent))
    chart = Chart("chart", key, title, alt, drawing, table)
    return Section("curve", "Robustness over eps", (note,), said, charts=(chart,))


def _classes(frame: pandas.DataFrame, class_names: Sequence[str]) -> Section:
    """Accuracy per class, a pair of columns for each model."""
    frame = frame if "model" in frame else frame.assign(model="")
    made = frame.drop_duplicates("class").set_index("class", drop=False)
    columns: dict[str, Any] = {}
    for i, (name, part) in enumerate(frame.groupby("model", sort=False)):
        for kind in (each for each in ("robust", "natural") if each in part):
            made[f"{kind}_{i}"] = part.drop_duplicates("class").set_index("class")[kind]
            columns[f"{kind}_{i}"] = (f"{name} {kind} (%)".strip(), percent)
    made["class"] = [class_title(k, class_names) for k in made["class"]]
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
        row = {"image": f"{i + 1}", "class": class_title(int(label), pictures.class_names)}
        shown = []
        for kind, image, found in (("natural", x[i], pictures.predicted[i]),
                                   ("adversarial", x_adv[i], pictures.predicted_adv[i])):  # fmt: skip
            wrong = bool(found != label)
            row[kind] = f"{class_title(int(found), pictures.class_names)}{' (wrong)' if wrong else ''}"
            shown.append({"kind": kind, "uri": figures.png_uri((image - low) / (high - low)), "wrong": wrong})
        cards.append(
            {
                **row,
                "pictures": shown,
                "difference": figures.png_uri(differences[i]),
                "change": f"change ×{SPACE}{factor:.3g}",
            }
        )
        change = x_adv[i] - x[i]
        rows.append({**row, "linf": np.abs(change).max(), "l2": np.linalg.norm(change)})
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
    return Section("pictures", "Natural and adversarial images", (note,), folded=(table,), cards=cards)


def _slices(frame: pandas.DataFrame, class_names: Sequence[str]) -> Section:
    """The decision regions of each model, with the share of the plane that each class takes."""
    drawings, legend = figures.slices("slices", frame, class_names)
    charts: list[Chart] = []
    for drawing, (name, part) in zip(drawings, frame.groupby("model", sort=False), strict=True):
        by_class = part.groupby("predicted").agg(share=("confidence", "size"), confidence=("confidence", "mean"))
        by_class["share"] /= len(part)
        by_class["title"] = [class_title(k, class_names) for k in by_class.index]
        largest = by_class.nlargest(1, "share").iloc[0]
        alt = f"Regions of {name} on the plane through three images: {len(by_class)} classes; class {largest['title']} "
        alt += f"takes the largest share, {percent(largest['share'])} %."
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
    return Section("slices", "Decision boundaries", (note,), legend=legend, charts=charts)


def _sanity(frame: pandas.DataFrame) -> Section:
    passed = frame["passed"].astype(bool)
    frame = frame.assign(result=np.where(passed, f"✓{SPACE}pass", f"✗{SPACE}FAIL"))
    if "expected" in frame:
        frame = frame.assign(expected=frame["expected"].astype(str).str.replace("<=", "≤"))
    of = f", {' / '.join(dict.fromkeys(map(str, frame['model'])))}" if "model" in frame else ""
    keys = "check result observed expected detail"
    table = _table(f"Whether the attacks can be believed{of}", frame, keys, ~passed)
    said = [f"{passed.sum()} of {len(passed)} checks passed."]
    if {"observed", "expected", "detail"} <= set(frame.columns):
        said = [line.removeprefix("- ") for line in masking_report(frame).split("\n")]
    notes, warned = (said[:1], ()) if passed.all() else ((), said)
    return Section("sanity", "Sanity checks", notes, warned, tables=(table,))


def _provenance(provenance: Mapping[str, Any]) -> Section:
    given = {str(key): value for key, value in provenance.items()}
    commands = given.pop("commands", ())
    commands = [commands] if isinstance(commands, str) else commands
    plain = {key: value for key, value in given.items() if not isinstance(value, Mapping)}
    groups = ({"general": plain} if plain else {}) | {k: v for k, v in given.items() if k not in plain}
    tables = [_table(title, pandas.DataFrame(_flat(values), columns=["name", "value"]), "name value")
              for title, values in groups.items()]  # fmt: skip
    short, long = ([t for t in tables if (len(t.rows) > _LONG_TABLE) == folded] for folded in (False, True))
    return Section("provenance", "Provenance", tables=short, folded=long, commands=list(map(str, commands)))


def _flat(values: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as rows with dotted names; lists on one line."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            several = isinstance(value, Sequence) and not isinstance(value, str)
            yield f"{before}{key}", ", ".join(map(str, value)) if several else str(value)
