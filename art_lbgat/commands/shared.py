"""What the subcommands share: one message for an error, exit codes, devices, progress lines."""

from __future__ import annotations

import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas


_SHOWN = 5  # names in an error
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
    except BrokenPipeError:  # whoever read the output has gone
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing at exit fails once more
        raise typer.Exit(FAILED) from None
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


def typed() -> str:
    """The command as it was typed."""
    return shlex.join(["art-lbgat", *sys.argv[1:]])


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
        kind = "is a directory" if path.is_dir() else "exists already"
        raise ValueError(f"{option}: {path} {kind}; expected a new file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: there is no directory {path.parent} to write {path.name} to.")


def refuse_other_things(directory: Path, besides: str = "") -> None:
    """Refuse a directory that is not empty.

    :param directory: The directory; one that is not there is as good as empty.
    :param besides: What else would have been taken, as the error goes on.
    :raises ValueError: If there is anything in it.
    """
    there = sorted(each.name for each in directory.iterdir()) if directory.is_dir() else []
    if there:
        names = ", ".join(there[:_SHOWN]) + (", ..." if len(there) > _SHOWN else "")
        raise ValueError(
            f"output: {directory} holds other things ({names}); expected a new or an empty directory{besides}."
        )


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
