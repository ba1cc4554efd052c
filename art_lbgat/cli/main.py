"""``art-lbgat``: the app, its commands, and what happens to whatever goes wrong in them.

Importing this imports neither torch nor ART, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from art_lbgat import __version__
from art_lbgat.cli.doctor import doctor
from art_lbgat.cli.judge import evaluate, predict, report
from art_lbgat.cli.leaderboard import benchmark, compare, leaderboard
from art_lbgat.cli.output import say
from art_lbgat.cli.study import demo, recipes, study
from art_lbgat.cli.train import train

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Boundary guided adversarial training for the Adversarial Robustness Toolbox.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (the same command resumes).",
)


class _Messages(logging.Handler):
    """Warnings of the package as plain lines on stderr, from the main process."""

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("RANK", "0") == "0" or record.levelno >= logging.ERROR:
            say(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


def _version(value: bool) -> None:
    if value:
        say(f"art-lbgat {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and what the package logs.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback sees to it)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Boundary guided adversarial training for the Adversarial Robustness Toolbox."""
    if not debug and not sys.warnoptions:  # of the libraries, about code that no user of a command can change
        for kind in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
    logger = logging.getLogger("art_lbgat")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    logger.setLevel(logging.INFO if debug else logging.WARNING)


def one_message(command: Callable[..., Any]) -> Callable[..., None]:
    """Whatever goes wrong in a command ends with one line, or with a traceback after ``--debug``.

    Exit code 2 for bad input, 130 for an interruption, 1 for all else.
    """

    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
        except KeyboardInterrupt as error:
            say(f"interrupted: {error}" if str(error) else "interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # whoever read the output has gone
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing at exit fails once more
            raise typer.Exit(FAILED) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            bad_input = isinstance(error, (TypeError, ValueError, OSError)) and not isinstance(error, ArithmeticError)
            say(_text(error, bad_input), err=True)
            raise typer.Exit(BAD_INPUT if bad_input else FAILED) from None

    return run


def _text(error: Exception, bad_input: bool) -> str:
    """The message of an error, with its kind where that is unexpected, and the process where it is not the main one."""
    text, rank = str(error) or type(error).__name__, os.environ.get("RANK", "0")
    expected = bad_input or isinstance(error, (RuntimeError, ImportError, ArithmeticError))
    debug = logging.getLogger("art_lbgat").level == logging.INFO
    hint = "" if expected or debug else " (art-lbgat --debug ... shows where)"
    process = "" if rank == "0" or os.environ.get("WORLD_SIZE", "1") == "1" else f"process {rank}: "
    named = text if expected else f"{type(error).__name__}: {text}"
    return f"{traceback.format_exc() if debug else ''}{process}error: {named}{hint}"


for each in (demo, train, evaluate, predict, benchmark, leaderboard, compare, report, recipes, study, doctor):
    app.command()(one_message(each))


def main() -> None:
    """Entry point of the ``art-lbgat`` command."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # workers would import a types.py of the folder they are started in
    app()
