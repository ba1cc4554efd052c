"""``art-lbgat doctor``: what is installed, what works, and whether a training step is the published one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from art_lbgat.commands import shared

if TYPE_CHECKING:
    from art_lbgat.commands.checkup import Finding


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show versions, devices, optional packages, what of RobustBench is stepped round, and a self test of two steps."""
    with shared.one_message():
        from art_lbgat.commands.checkup import check_up

        findings = check_up()
        broken = [each for each in findings if each.state == "broken"]
        if json_:
            rows = [each._asdict() for each in findings]
            typer.echo(json.dumps({"healthy": not broken, "findings": rows}, indent=2))
        else:
            _print_findings(findings)
            typer.echo("everything works" if not broken else f"broken: {', '.join(each.name for each in broken)}")
        if broken:
            raise typer.Exit(shared.FAILED)


def _print_findings(findings: Sequence[Finding]) -> None:
    """Texts that are longer than the terminal is wide go on below themselves."""
    from rich.table import Table
    from rich.text import Text

    from art_lbgat.commands.reporting import plain_console

    console, width = plain_console(), max(len(each.name) for each in findings)
    for group, members in groupby(findings, lambda each: each.group):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=9)
        table.add_column(min_width=width, no_wrap=True)
        table.add_column(overflow="fold")
        for each in members:
            table.add_row(f"  {each.state}", each.name, Text(each.text))
        console.print(group, highlight=False)
        console.print(table, highlight=False)
