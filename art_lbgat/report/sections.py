"""From content to sections: which parts the page has, in order, and those that hold no accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from art_lbgat.report.accuracy import attacks_section, classes_section, curve_section, models_section
from art_lbgat.report.content import Pictures, ReportContent
from art_lbgat.report.images import LARGEST, make_cards
from art_lbgat.report.results import Results
from art_lbgat.report.section import Section
from art_lbgat.report.slice_figures import make_slices
from art_lbgat.report.tables import SPACE, Column, make_table, significant
from art_lbgat.report.training import training_charts

if TYPE_CHECKING:
    import pandas

_LONG_TABLE = 12  # rows of a table that nobody reads from top to bottom


def make_sections(content: ReportContent, results: Results) -> list[Section]:
    """The sections that have something to show, in the order of the page, the answer left out.

    :param content: What there is.
    :param results: Its results.
    """
    styles = model_styles(content, results)
    made = [models_section(results, content.leaderboard, content.comparison, styles)]
    if content.attacks is not None:
        made.append(attacks_section(content.attacks))
    if content.histories:
        made.append(Section("training", "Training", charts=tuple(training_charts(content.histories, styles))))
    if content.curve is not None:
        made.append(curve_section(content.curve, styles))
    if content.per_class is not None:
        made.append(classes_section(content.per_class, content.class_names))
    if content.pictures is not None:
        made.append(_pictures(content.pictures))
    if content.slices is not None:
        made.append(_slices(content.slices, content.class_names))
    if content.sanity is not None:
        made.append(_sanity(content.sanity))
    if content.provenance:
        made.append(_provenance(content.provenance))
    return made


def model_styles(content: ReportContent, results: Results) -> dict[str, int]:
    """A style for each name, the same in every chart: ours first, then the baselines, then what else has a line.

    :param content: What there is.
    :param results: Its results.
    """
    table = results.table
    names = [*table["model"][table["ours"]], *table["model"][~table["ours"]], *content.histories]
    if content.curve is not None and "model" in content.curve:
        names += list(content.curve["model"])
    return {name: i for i, name in enumerate(dict.fromkeys(map(str, names)))}


def _pictures(pictures: Pictures) -> Section:
    cards, factor, table = make_cards(pictures)
    by = f" of {pictures.model}" if pictures.model else ""
    how = f" ({pictures.attack})" if pictures.attack else ""
    note = (
        f"Under each image stands the prediction{by}. The third picture is the change that makes the adversarial "
        f"example{how}, multiplied by {factor:.3g}, the same for all; grey is no change."
    )
    small = f" Larger pictures are averaged down to {LARGEST} pixels; the numbers are those of the whole images."
    note += small if max(pictures.x.shape[2:]) > LARGEST else ""
    return Section("pictures", "Natural and adversarial images", (note,), cards=tuple(cards), cards_table=table)


def _slices(frame: pandas.DataFrame, class_names: Sequence[str]) -> Section:
    figures, swatches = make_slices(frame, class_names)
    note = (
        "The plane through three images, coloured by the predicted class, stronger where the model is surer. Black "
        "lines are decision boundaries, markers the three images; distances are L2 in input units."
    )
    if any(figure.limit for figure in figures):
        note += " Outside the white line there are no valid images."
    return Section("slices", "Decision boundaries", (note,), slices=tuple(figures), swatches=tuple(swatches))


def _sanity(frame: pandas.DataFrame) -> Section:
    from art_lbgat.evaluation import masking_report

    passed = [bool(value) for value in frame["passed"]]
    frame = frame.assign(result=[f"✓{SPACE}pass" if each else f"✗{SPACE}FAIL" for each in passed])
    if "expected" in frame:
        frame = frame.assign(expected=[str(each).replace("<=", "≤") for each in frame["expected"]])
    columns = [Column("check", "check"), Column("result", "result"), Column("observed", "observed", significant),
               Column("expected", "expected"), Column("detail", "what is compared")]  # fmt: skip
    of = f", {' / '.join(dict.fromkeys(map(str, frame['model'])))}" if "model" in frame else ""
    table = make_table(f"Whether the attacks can be believed{of}", frame, columns, [not each for each in passed])
    if {"observed", "expected", "detail"} <= set(frame.columns):
        first, *more = (line.removeprefix("- ") for line in masking_report(frame).split("\n"))
    else:
        first, *more = [f"{sum(passed)} of {len(passed)} checks passed."]
    notes, warned = ((first,), ()) if all(passed) else ((), (first, *more))
    return Section("sanity", "Sanity checks", notes, warned, tables=(table,))


def _provenance(provenance: Mapping[str, Any]) -> Section:
    import pandas

    given = {str(key): value for key, value in provenance.items()}
    commands = given.pop("commands", ())
    commands = [commands] if isinstance(commands, str) else list(commands)
    plain = {key: value for key, value in given.items() if not isinstance(value, Mapping)}
    groups = {**({"general": plain} if plain else {}), **{k: v for k, v in given.items() if k not in plain}}
    columns = [Column("name", "name"), Column("value", "value")]
    tables = tuple(
        make_table(title, pandas.DataFrame(_flat(values), columns=["name", "value"]), columns)
        for title, values in groups.items()
    )
    long = tuple(table for table in tables if len(table.rows) > _LONG_TABLE)
    short = tuple(table for table in tables if len(table.rows) <= _LONG_TABLE)
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
