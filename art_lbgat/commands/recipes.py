"""``art-lbgat recipes``: the table of recipes, or one of them in full."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lbgat.commands import shared
from art_lbgat.commands.choosing import complete_recipe, find_recipe


def recipes(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Id or file of a recipe to show in full; all if left out.", autocompletion=complete_recipe),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the recipe to this new YAML or TOML file instead.")] = None,
) -> None:
    """List the recipes: id, data, model, objective, eps, passes per step, published natural / AutoAttack, source."""
    with shared.one_message():
        if recipe is None:
            if save is not None:
                raise ValueError("save: expected the id of one recipe beside it.")
            _print_all()
            return
        found = find_recipe(recipe)
        if save is not None:
            if save.exists():
                raise ValueError(f"save: {save} exists already; expected a new file.")
            found.save(save)
            typer.echo(f"saved in {save}")
            return
        for name, value in found.as_dict().items():
            typer.echo(f"{name}: {value}")
        typer.echo(f"passes per step: {found.cost}")


def _print_all() -> None:
    from rich.console import Console
    from rich.table import Table

    from art_lbgat.recipes import RECIPES

    table = Table(title="Recipes; published accuracies in percent, PGD-20 marked *")
    headers = ("id", "data", "model", "objective", "eps", "passes per step", "natural", "AutoAttack", "source")
    for header in headers:
        table.add_column(header, no_wrap=header == "id", overflow="fold")
    for recipe in RECIPES.values():
        natural = robust = ""
        result = recipe.published
        if result is not None:
            natural = f"{result.natural:.2f}"
            robust = f"{result.autoattack:.2f}" if result.autoattack is not None else f"{result.pgd_20:.2f}*"
        source = recipe.source if result is None else result.source
        eps = f"{round(recipe.eps * 255)}/255" if abs(recipe.eps * 255 % 1) < 1e-9 else f"{recipe.eps:g}"
        table.add_row(
            recipe.id, recipe.data, recipe.model, recipe.objective, eps, str(recipe.cost), natural, robust, source
        )
    console = Console()
    # In a pipe there is no width to fit into, and a cut id would be of no use.
    console = console if console.is_terminal else Console(width=220)
    console.print(table, highlight=False)
