"""``art-lbgat``: the command line. Each subcommand is a file of :mod:`art_lbgat.commands`.

Importing this imports neither torch nor ART, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from art_lbgat import __version__
from art_lbgat.commands.benchmark import benchmark
from art_lbgat.commands.demo import demo
from art_lbgat.commands.doctor import doctor
from art_lbgat.commands.evaluate import evaluate
from art_lbgat.commands.leaderboard import compare, leaderboard
from art_lbgat.commands.predict import predict
from art_lbgat.commands.recipes import recipes
from art_lbgat.commands.report import report
from art_lbgat.commands.shared import Settings
from art_lbgat.commands.study import study
from art_lbgat.commands.train import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Boundary guided adversarial training for the Adversarial Robustness Toolbox.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (the same command goes on).",
)


class _Messages(logging.Handler):
    """Warnings of the package as plain lines on stderr, from the main process."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        if os.environ.get("RANK", "0") == "0" or record.levelno >= logging.ERROR:
            typer.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"art-lbgat {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and what the package logs.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback sees to it)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Boundary guided adversarial training for the Adversarial Robustness Toolbox."""
    Settings.debug = debug
    if not debug and not sys.warnoptions:  # of the libraries, about code that no user of a command can change
        for kind in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
    logger = logging.getLogger("art_lbgat")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    logger.setLevel(logging.INFO if debug else logging.WARNING)


for command in (demo, train, evaluate, predict, benchmark, leaderboard, compare, report, recipes, study, doctor):
    app.command()(command)


def main() -> None:
    """Entry point of the ``art-lbgat`` command."""
    app()
