"""What a study leaves behind: its table on the terminal, its files, its page."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from art_lbgat.commands.shared import refuse_other_things

if TYPE_CHECKING:
    import pandas

    from art_lbgat.data import DataSet
    from art_lbgat.study import StudyOptions

Spread = Literal["ci", "std"]
_SPREADS = {"ci": "half of the 95 % interval", "std": "standard deviation"}
_VERSUS = " vs first"


@contextmanager
def study_directory(output: Path) -> Iterator[None]:
    """Make the directory of a study; if what is done in it fails before there is a file, it is as if never made.

    :param output: The directory.
    :raises ValueError: It holds other things, but no study.
    """
    made = not output.exists()
    if not (output / "runs").exists():
        refuse_other_things(output, ", or that of a study")
    output.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in (output / "runs", output) if made else ():
            with suppress(OSError):  # not empty, or not there
                each.rmdir()
        raise


def print_study(title: str, summary: pandas.DataFrame, runs: pandas.DataFrame, spread: Spread = "ci") -> None:
    """The table of a study on the terminal, and what AutoAttack warned of.

    :param title: Its title.
    :param summary: The table of ``summarize``.
    :param runs: A row per run.
    :param spread: ``"ci"`` or ``"std"``, what the spread is.
    """
    from rich.table import Table

    from art_lbgat.commands.reporting import plain_console

    console = plain_console()
    for eps, part in summary.groupby("eps", sort=False):
        headers, rows = _headers(part, runs), _rows(part, spread)
        differences = [i for i, header in enumerate(headers) if header.endswith(_VERSUS)]
        whole = [i for i in range(len(headers)) if i not in differences]
        caption = f"{title}, eps = {eps:.4g}: mean ± {_SPREADS[spread]} over seeds"
        # Two narrow tables fit into 80 columns where a wide one would cut names off.
        parts = [(caption, whole), (f"{title}: difference to {rows[0][0]}, in points", [0, *differences])]
        for name, columns in parts if differences else parts[:1]:
            table = Table(title=name, title_justify="left")
            for i in columns:
                heading = headers[i].removesuffix(_VERSUS).replace(" (", "\n(")
                table.add_column(heading, justify="right" if i else "left", overflow="fold", no_wrap=i > 0)
            for line in rows if columns == whole else rows[1:]:
                table.add_row(*(line[i] for i in columns))
            console.print(table)
    for label in _labels(runs):
        console.print(label, highlight=False, markup=False)
    # The same warning with other percentages is one line, with the number of runs that it was raised in.
    flags = Counter(re.sub(r"[\d.]+%", "some %", flag) for flag in runs["flags"] if flag)
    for flag, count in sorted(flags.items()):
        text = f"AutoAttack warns in {count} of {len(runs)} runs (see runs.csv): {flag}"
        console.print(text, highlight=False, markup=False)


def save_study(
    output: Path,
    command: str,
    options: StudyOptions,
    runs: pandas.DataFrame,
    summary: pandas.DataFrame,
    seconds: float,
    spread: Spread = "ci",
) -> None:
    """``runs.csv``, ``summary.csv``, ``table.md`` and ``results.json`` (all of it, with settings and versions).

    :param output: The directory.
    :param command: What was typed.
    :param options: The settings of the study.
    :param runs: A row per run.
    :param summary: The table of ``summarize``.
    :param seconds: How long it took.
    :param spread: ``"ci"`` or ``"std"``, what the spread is.
    """
    import art
    import torch

    import art_lbgat

    runs.to_csv(output / "runs.csv", index=False)
    summary.to_csv(output / "summary.csv", index=False)
    settings = {name: value for name, value in vars(options).items() if name not in ("arms", "root")}
    record = {
        "command": command,
        "options": {**settings, "seeds": list(options.seeds)},
        "arms": {arm: options.recipe(arm).as_dict() for arm in options.arms},
        "versions": {
            "art_lbgat": art_lbgat.__version__,
            "art": art.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "seconds": seconds,
        "summary": json.loads(summary.to_json(orient="records")),
        "runs": json.loads(runs.to_json(orient="records")),
    }
    (output / "results.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (output / "table.md").write_text(_markdown(summary, runs, spread), encoding="utf-8")


def write_study_page(
    path: Path, options: StudyOptions, output: Path, runs: pandas.DataFrame, data: DataSet, *, title: str, command: str
) -> Path:
    """The page of a study.

    :param path: The HTML file.
    :param options: What was run.
    :param output: The directory of the study.
    :param runs: A row per run.
    :param data: The data set of the first seed.
    :param title: Title of the page.
    :param command: What was typed.
    :return: The path.
    """
    from art_lbgat.report import write_report
    from art_lbgat.study import study_content

    return write_report(path, study_content(options, output, runs, title=title, commands=[command], data=data))


def _measures(summary: pandas.DataFrame) -> list[str]:
    from art_lbgat.study.table import MEASURES

    return [name for name in MEASURES if f"{name}_mean" in summary]


def _headers(summary: pandas.DataFrame, runs: pandas.DataFrame) -> list[str]:
    from art_lbgat.study.table import COUNTS

    titles = {"natural": "natural", "pgd-20": "PGD-20", "autoattack": "AutoAttack"}
    headers = ["method"]
    headers += [f"{titles[name]} % (n={int(runs[COUNTS[name]].max())})" for name in _measures(summary)]
    headers += [f"{titles[name]}{_VERSUS}" for name in _measures(summary) if f"{name}_diff" in summary]
    return [*headers, "training s"]


def _rows(summary: pandas.DataFrame, spread: Spread) -> list[list[str]]:
    from art_lbgat.study.table import cell

    names = _measures(summary)
    rows = []
    for row in summary.to_dict("records"):
        line = [str(row["arm"]), *(cell(row[f"{name}_mean"], row[f"{name}_{spread}"]) for name in names)]
        line += [cell(row[f"{n}_diff"], row[f"{n}_diff_ci"]) for n in names if f"{n}_diff" in summary]
        rows.append([*line, f"{row['train_seconds']:.0f}"])
    return rows


def _markdown(summary: pandas.DataFrame, runs: pandas.DataFrame, spread: Spread) -> str:
    parts = []
    for eps, part in summary.groupby("eps", sort=False):
        headers = _headers(part, runs)
        lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *_rows(part, spread)]
        parts.append(
            f"eps = {eps:.4g}, mean ± {_SPREADS[spread]} over seeds\n\n"
            + "\n".join(f"| {' | '.join(line)} |" for line in lines)
            + "\n"
        )
    return "\n".join([*parts, *(f"{line}\n" for line in _labels(runs))])


def _labels(runs: pandas.DataFrame) -> list[str]:
    """What makes the numbers other than standard ones on the test set."""
    lines = []
    if "validation" in set(runs.get("part", ())):
        lines.append("Judged on the validation part, to choose settings by; these are no test results.")
    chosen = runs[runs["selection"] == "test"] if "selection" in runs else runs[:0]
    if len(chosen):
        names = ", ".join(dict.fromkeys(chosen["arm"]))
        lines.append(f"Epoch chosen on the test set (a reproduction, not a fair result): {names}.")
    kinds = sorted({kind for kind in runs.get("autoattack_kind", ()) if kind != "autoattack (standard)"})
    if kinds:
        lines.append(f"AutoAttack is not the standard one: {', '.join(map(str, kinds))}.")
    return lines
