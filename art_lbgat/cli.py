"""``art-lbgat``: the command line. Each subcommand is a file of :mod:`art_lbgat.commands`."""

from __future__ import annotations

import typer

from art_lbgat.commands.demo import demo
from art_lbgat.commands.recipes import recipes
from art_lbgat.commands.study import study

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Boundary guided adversarial training for the Adversarial Robustness Toolbox.",
)


@app.callback()
def _root() -> None:
    """Boundary guided adversarial training for the Adversarial Robustness Toolbox."""


for command in (demo, recipes, study):
    app.command()(command)


def main() -> None:
    """Entry point of the ``art-lbgat`` command."""
    app()
