"""``art-lbgat doctor``: what is installed, what works, and whether a training step is the published one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from art_lbgat.commands import shared


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
            width = max(len(each.name) for each in findings)
            group = ""
            for each in findings:
                if each.group != group:
                    typer.echo(f"{each.group}")
                    group = each.group
                typer.echo(f"  {each.state:<7} {each.name:<{width}}  {each.text}")
            typer.echo("everything works" if not broken else f"broken: {', '.join(each.name for each in broken)}")
        if broken:
            raise typer.Exit(shared.FAILED)
