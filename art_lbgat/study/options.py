"""What a study runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from art_lbgat.checks import check_choice, check_count, check_path, check_seed
from art_lbgat.data.datasets import LARGEST_SEED
from art_lbgat.recipes import Recipe
from art_lbgat.recipes.experiment import guide_recipe


@dataclass(frozen=True)
class StudyOptions:
    """What a study runs.

    :param arms: What is compared: recipes by label, all on the same data.
    :param seeds: One run of each arm for each; a seed decides validation split, initial weights, order, attack starts.
    :param root: Where the data lies; not needed for the digits.
    :param limit: Use only so many training images, or all.
    :param nb_epochs: Epochs of every run, of the guides too, with milestones and warm-up in proportion; None leaves
        those of the recipes.
    :param part: What is judged: ``"test"`` for numbers to report, ``"validation"`` to choose settings by.
    :param n_test: Images that natural accuracy and PGD-20 are measured on, the same for every run and the same number
        of each class (see :func:`~art_lbgat.data.balanced_order`), or all.
    :param n_autoattack: Images that standard AutoAttack judges, the first of those; 0 leaves it out.
    :param workers: Processes; None is one per core, or one where there is a GPU.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: No arm or seed, arms on different data, a value outside its range.
    """

    arms: Mapping[str, Recipe]
    seeds: Sequence[int] = (0, 1)
    root: str | Path | None = None
    limit: int | None = None
    nb_epochs: int | None = None
    part: Literal["test", "validation"] = "test"
    n_test: int | None = None
    n_autoattack: int = 100
    workers: int | None = None

    def __post_init__(self) -> None:
        self._check_runs()
        if self.root is not None:
            check_path(self.root, "root")
        for name in ("limit", "nb_epochs", "n_test", "workers"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        check_count(self.n_autoattack, "n_autoattack", minimum=0)
        check_choice(self.part, "part", ("test", "validation"))

    def _check_runs(self) -> None:
        """Arms and seeds."""
        recipes = isinstance(self.arms, Mapping) and all(isinstance(each, Recipe) for each in self.arms.values())
        if not recipes or not all(isinstance(label, str) for label in self.arms):
            raise TypeError(f"arms: expected a mapping from labels to recipes, got {self.arms!r}.")
        if isinstance(self.seeds, (str, bytes)) or not isinstance(self.seeds, Sequence):
            raise TypeError(f"seeds: expected a sequence of whole numbers, got {self.seeds!r}.")
        for name in ("arms", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none.")
        for seed in self.seeds:
            check_seed(seed, "seeds", maximum=LARGEST_SEED)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different seeds, got {tuple(self.seeds)}.")
        data = {recipe.data for recipe in self.arms.values()}
        if len(data) > 1:
            raise ValueError(f"arms: expected recipes on the same data, got {sorted(data)}.")

    def recipe(self, arm: str) -> Recipe:
        """The recipe of an arm, for the number of epochs of this study.

        :param arm: The name of the arm.
        """
        return self._scaled(self.arms[arm])

    def guide_recipe(self, recipe: Recipe, model: str) -> Recipe:
        """The recipe that trains one frozen guide of ``recipe``, judged at its eps and norm.

        :param recipe: The recipe of an arm.
        :param model: The network of the guide.
        """
        found = guide_recipe(recipe, model)
        return self._scaled(found).override(eps=recipe.eps, norm=recipe.norm)

    def processes(self) -> int:
        """How many processes run."""
        import torch

        if self.workers is not None:
            return self.workers
        return 1 if torch.cuda.is_available() else cores()

    def _scaled(self, recipe: Recipe) -> Recipe:
        return recipe if self.nb_epochs is None else recipe.scaled(self.nb_epochs)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
