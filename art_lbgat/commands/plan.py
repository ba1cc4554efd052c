"""What a training is to be: recipe, how to run it, on which data; read from a command line or a file, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from art_lbgat.checks import check_choice, check_kind, check_path, check_seed
from art_lbgat.commands.choosing import FILES, find_recipe
from art_lbgat.engine.options import RunOptions
from art_lbgat.fingerprint import MAY_CHANGE, differences
from art_lbgat.recipes import Recipe
from art_lbgat.recipes.files import NONE, read_mapping, without_null

RECIPE_FIELDS = tuple(f.name for f in fields(Recipe))
_BY_OPTION = {"seed": "--seed", "resume": "--resume", "checkpoint_dir": "--output", "trackers": "--tracker",
              "verbose": "--quiet"}  # fmt: skip
RUN_FIELDS = tuple(f.name for f in fields(RunOptions) if f.name not in {*RECIPE_FIELDS, *_BY_OPTION})
_OF_THE_CALL = ("seed", "limit", "root", "guide_weights")
_FACTS = ("input_shape", "nb_classes", "class_names", "n_test", "n_autoattack", "report", "tracker")
_FREE = {"published", "source", "notes", "root", "guide_weights", *_FACTS, *MAY_CHANGE} - {"nb_epochs"}


@dataclass(frozen=True)
class Plan:
    """A training.

    :param recipe: Everything that decides the result, but for what follows.
    :param run: Fields of :class:`~art_lbgat.RunOptions` that are none of the recipe.
    :param seed: Seed of split, weights, order and attacks.
    :param limit: Use only so many training images.
    :param root: Where the data lies.
    :param guide_weights: Files of trained weights of the guides.
    """

    recipe: Recipe
    run: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    limit: int | None = None
    root: Path | None = None
    guide_weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_seed(self.seed)
        self.recipe.run_options(self.seed, verbose=False, **{**self.run, "checkpoint_dir": "checkpoints"})

    @property
    def data_title(self) -> str:
        """What its data are called in titles: a folder has the name of its directory."""
        if self.root is not None and self.recipe.data in ("folder", "npz"):
            return self.root.resolve().name
        return self.recipe.data

    def as_toml(self, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As it is written to ``config.toml``: the recipe's fields, and a table ``run``.

        :param facts: More values of that table.
        """
        own: dict[str, Any] = {
            "seed": self.seed,
            "limit": self.limit,
            "root": None if self.root is None else str(self.root.resolve()),
            "guide_weights": [str(Path(each).resolve()) for each in self.guide_weights] or None,
        }
        return {**self.recipe.as_toml(), "run": without_null({**own, **self.run, **(facts or {})})}

    def differences_from(self, written: Mapping[str, Any]) -> list[str]:
        """Lines ``name: written -> ours`` for whatever would make another run of it.

        :param written: What a ``config.toml`` holds.
        """
        return differences(_decisive(written), _decisive(self.as_toml()))


def _decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {**{k: v for k, v in values.items() if k != "run"}, **dict(values.get("run", {}))}
    return {name: value for name, value in flat.items() if name not in _FREE}


def make_plan(
    recipe: str,
    settings: Mapping[str, Any] | None = None,
    *,
    nb_epochs: int | None = None,
    seed: int | None = None,
    limit: int | None = None,
    root: Path | None = None,
    guide_weights: Sequence[Path] = (),
) -> Plan:
    """A plan from a command line; what is None or empty is as the file says, else as usual.

    :param recipe: Id of a recipe, or a file: that of a recipe, or the ``config.toml`` of a run.
    :param settings: Fields of the recipe, or of the run, that are to have other values.
    :param nb_epochs: Epochs; milestones, warm-up and the start of AWP keep their share.
    :param seed: Seed.
    :param limit: Number of training images.
    :param root: Where the data lies.
    :param guide_weights: Files of trained weights of the guides.
    :raises FileNotFoundError: If there is no such file.
    :raises TypeError: An unknown field, with the nearest that exists, or a value of the wrong type.
    :raises ValueError: An unknown id or a bad value.
    """
    found, run = find_recipe(recipe), _run_of_file(recipe)
    if nb_epochs is not None:
        found = found.scaled(nb_epochs)
    changes = dict(settings or {})
    for name in changes:
        _check_field(name, (*RECIPE_FIELDS, *RUN_FIELDS), "set")
    found = found.override(**{name: value for name, value in changes.items() if name in RECIPE_FIELDS})
    given = {"seed": seed, "limit": limit, "root": root, "guide_weights": tuple(map(str, guide_weights)) or None}
    call = {**{name: run.pop(name) for name in _OF_THE_CALL if name in run}, **without_null(given)}
    run.update((name, value) for name, value in changes.items() if name in RUN_FIELDS)
    weights = call.get("guide_weights", ())
    return Plan(
        found,
        {name: None if value == NONE else value for name, value in run.items()},
        seed=call.get("seed", 0),
        limit=call.get("limit"),
        root=None if call.get("root") is None else check_path(call["root"], "root"),
        guide_weights=(weights,) if isinstance(weights, str) else tuple(weights),
    )


def _run_of_file(recipe: str) -> dict[str, Any]:
    """The table ``run`` of a file, without what is only noted there."""
    if not recipe.lower().endswith(FILES):
        return {}
    run = check_kind(read_mapping(recipe).get("run", {}), "run", dict)
    for name in run:
        _check_field(name, (*RUN_FIELDS, *_OF_THE_CALL, *_FACTS), "run")
    return {name: value for name, value in run.items() if name not in _FACTS}


def _check_field(name: str, allowed: Sequence[str], where: str) -> None:
    if name in allowed:
        return
    if name in _BY_OPTION:
        raise TypeError(f"{where}: {name} has an option of its own, {_BY_OPTION[name]}.")
    try:
        check_choice(name, "field", allowed)
    except ValueError as error:
        near = str(error).rpartition("; ")[2] if "; did you mean" in str(error) else "`art-lbgat recipes ID` lists them"
        raise TypeError(f"{where}: there is no field {name!r}; {near}") from None
