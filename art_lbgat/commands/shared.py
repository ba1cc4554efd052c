"""What the subcommands share: one message for an error, exit codes, progress lines, study tables and their files."""

from __future__ import annotations

import json
import os
import platform
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    import pandas

    from art_lbgat.study import StudyOptions

Spread = Literal["std", "ci"]
_SPREADS = {"std": "standard deviation", "ci": "half of the 95 % interval"}


FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes


class Settings:
    """What was asked for before the subcommand."""

    debug = False


@contextmanager
def one_message() -> Iterator[None]:
    """Whatever goes wrong ends with one line, or with a traceback after ``--debug``.

    Exit code 2 for bad input, 130 for an interruption, 1 for all else.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(f"interrupted: {error}" if str(error) else "interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if isinstance(error, (typer.Exit, typer.Abort)):
            raise
        bad_input = isinstance(error, (TypeError, ValueError, OSError)) and not isinstance(error, ArithmeticError)
        if Settings.debug:
            traceback.print_exc()
        typer.echo(f"{_process()}error: {_text(error, bad_input)}", err=True)
        raise typer.Exit(BAD_INPUT if bad_input else FAILED) from None


def _text(error: Exception, bad_input: bool) -> str:
    text = str(error) or type(error).__name__
    expected = bad_input or isinstance(error, (RuntimeError, ImportError, ArithmeticError))
    hint = "" if expected or Settings.debug else " (art-lbgat --debug ... shows where)"
    return f"{text if expected else f'{type(error).__name__}: {text}'}{hint}"


def _process() -> str:
    """Which of several processes speaks, if it is not the main one."""
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    return "" if rank == "0" else f"process {rank}: "


def new_file(path: Path | None, option: str) -> None:
    """Refuse a file that is there, or whose directory is not, before anything long is done.

    :param path: The file that is to be written, or None.
    :param option: The option that it came from.
    :raises ValueError: If it is there already.
    :raises FileNotFoundError: If its directory is not there.
    """
    if path is None:
        return
    if path.exists():
        raise ValueError(f"{option}: {path} exists already; expected a new file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: there is no directory {path.parent} to write {path.name} to.")


def choose_device(device: str) -> str | None:
    """What ``device_type`` is for ``auto``, ``cpu`` or ``cuda``; with torchrun each process takes its own GPU.

    :param device: The name.
    :raises ValueError: Another name, or ``cuda`` where there is none.
    """
    import torch

    from art_lbgat.checks import check_choice

    check_choice(device, "device", ("auto", "cpu", "cuda"))
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device: expected 'cpu' or 'auto', since CUDA is not available here, got 'cuda'.")
    local = os.environ.get("LOCAL_RANK", "")
    if device != "cpu" and available and local.isdigit() and os.environ.get("WORLD_SIZE", "1") != "1":
        if int(local) >= torch.cuda.device_count():
            raise ValueError(
                f"device: expected a GPU for each process, got {torch.cuda.device_count()} and process {local} (from "
                "0) on this machine; lower --nproc-per-node, or take --device cpu."
            )
        torch.cuda.set_device(int(local))
    return {"auto": None, "cpu": "cpu", "cuda": "gpu"}[device]


def progress_lines() -> Callable[[int, int, dict[str, Any]], None]:
    """A report for ``run_study`` that prints a line per run to stderr."""
    from rich.console import Console

    start, console = time.perf_counter(), Console(stderr=True)

    def report(done: int, total: int, row: dict[str, Any]) -> None:
        line = (
            f"[{done:>2}/{total}] {time.perf_counter() - start:4.0f} s  {row['recipe']:<20} eps {row['eps']:.3g} "
            f"seed {row['seed']}: natural {row['natural']:.1%}, PGD-20 {row['pgd-20']:.1%}"
        )
        if "autoattack" in row:
            line += f", AutoAttack {row['autoattack']:.1%}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    return report


def print_frame(title: str, frame: pandas.DataFrame) -> None:
    """A table on stdout as it is: numbers to the right, missing values empty.

    :param title: Its title.
    :param frame: The table.
    """
    from rich.table import Table

    from art_lbgat.commands.reporting import plain_console

    table = Table(title=title, title_justify="left")
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "fi"
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(
            *("" if str(v) in ("nan", "<NA>") else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row)
        )
    plain_console().print(table, highlight=False, markup=False)


def print_study(title: str, summary: pandas.DataFrame, runs: pandas.DataFrame, spread: Spread = "ci") -> None:
    """The table of a study on the terminal, and what AutoAttack warned of.

    :param title: Its title.
    :param summary: The table of ``summarize``.
    :param runs: A row per run.
    :param spread: ``"ci"`` or ``"std"``, what the spread is.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for eps, part in summary.groupby("eps", sort=False):
        table = Table(title=f"{title}, eps = {eps:.4g}: mean ± {_SPREADS[spread]} over seeds")
        for i, header in enumerate(_headers(part, runs)):
            table.add_column(header.replace(" (", "\n("), justify="left" if i == 0 else "right")
        for line in _rows(part, spread):
            table.add_row(*line)
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


def _measures(summary: pandas.DataFrame) -> list[str]:
    from art_lbgat.study.table import MEASURES

    return [name for name in MEASURES if f"{name}_mean" in summary]


def _headers(summary: pandas.DataFrame, runs: pandas.DataFrame) -> list[str]:
    titles = {"natural": "natural", "pgd-20": "PGD-20", "autoattack": "AutoAttack"}
    counts = {"natural": "n", "pgd-20": "n", "autoattack": "n_autoattack"}
    headers = ["method"]
    headers += [f"{titles[name]} % (n={int(runs[counts[name]].max())})" for name in _measures(summary)]
    headers += [f"{titles[name]} vs first" for name in _measures(summary) if f"{name}_diff" in summary]
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
