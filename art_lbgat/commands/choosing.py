"""Recipes and settings as they are named on a command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from art_lbgat.recipes import Recipe

FILES = (".yaml", ".yml", ".toml")


def find_recipe(name: str) -> Recipe:
    """The recipe of that id, or in that file.

    :param name: An id, or a file whose name ends in .toml, .yaml or .yml.
    :raises FileNotFoundError: If there is no such file.
    :raises TypeError: A file with an unknown field.
    :raises ValueError: An unknown id, with the nearest that exists, or a file that is no recipe.
    """
    from art_lbgat.recipes import RECIPES, Recipe

    if name.lower().endswith(FILES):
        return Recipe.read(name)
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"recipe: expected an id that `art-lbgat recipes` lists, or a file, got {name!r}{hint}")


def complete_recipe(incomplete: str) -> list[str]:
    """The ids that begin so, for the shell.

    :param incomplete: What has been typed.
    """
    from art_lbgat.recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """What ``--set field=value`` says, values as YAML reads them.

    :param texts: One text for each ``--set``.
    :raises ValueError: A text without ``=``, a field that is set twice, or a value that YAML cannot read.
    """
    import yaml

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"set: expected field=value, got {text!r}.")
        if name in found:
            raise ValueError(f"set: expected each field once, got {name!r} twice.")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"set: {name}: expected a value as in YAML, got {value!r}.") from error
    return found
