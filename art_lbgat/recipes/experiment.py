"""From a recipe to the objects that run it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.checks import check_count, check_flag, check_kind, check_seed
from art_lbgat.data import DataSet, Images, load_data
from art_lbgat.data.datasets import LARGEST_SEED
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.trackers import Tracker
from art_lbgat.losses import kd
from art_lbgat.models import create_classifier, create_model
from art_lbgat.preserve import preserved_randomness
from art_lbgat.recipes.recipe import Recipe
from art_lbgat.trainers import (
    ALPTrainer,
    BGATTrainer,
    FastATTrainer,
    LBGATTrainer,
    MadryTrainer,
    MARTTrainer,
    NaturalTrainer,
    TRADESTrainer,
)
from art_lbgat.trainers.base import BaseTrainer
from art_lbgat.weights import load_weights

_OF_ATTACKS = ("warm_start", "max_iter_warmup_epochs", "attack_precision")


@dataclass
class Experiment:
    """A recipe made ready to run.

    :param recipe: The recipe.
    :param classifier: The robust model, with its optimizer.
    :param guides: The guides, or none.
    :param trainer: The trainer of both.
    :param data: The data set.
    :param seed: Seed of weights, order and attacks.
    :param guides_trained: Whether frozen guides have been trained (or loaded).
    :param guide_trackers: The ``trackers`` of the training of each frozen guide.
    """

    recipe: Recipe
    classifier: PyTorchClassifier
    guides: list[PyTorchClassifier]
    trainer: BaseTrainer
    data: DataSet
    seed: int
    guides_trained: bool
    guide_trackers: Sequence[Sequence[Tracker]] = ()

    def fit(self) -> None:
        """Train as the recipe says; frozen guides that are not trained yet are trained first, by their own recipe."""
        if not self.guides_trained:
            self.train_guides()
        self.trainer.fit(training_images(self.recipe, self.data), **fit_options(self.recipe, self.data))

    def train_guides(self) -> None:
        """Train the frozen guides on natural images, each by the recipe that ``guide_recipe`` names.

        They run as the student does; with ``checkpoint_dir`` their checkpoints are in ``guide-0`` and so on below it.
        """
        recipe = guide_recipe(self.recipe)
        images = training_images(self.recipe, self.data)
        for index, guide in enumerate(self.guides):
            trackers = self.guide_trackers[index] if index < len(self.guide_trackers) else ()
            options = recipe.run_options(self.seed, self.trainer.options.verbose, **self._guide_run(index, trackers))
            NaturalTrainer(guide, options=options).fit(images, **fit_options(recipe, self.data))
        self.guides_trained = True

    def _guide_run(self, index: int, trackers: Sequence[Tracker]) -> dict[str, Any]:
        """Fields of the run, as those of a guide: its own checkpoints, and what only an attack has left out."""
        own = {field.name for field in fields(self.recipe)} | {"seed", "verbose", *_OF_ATTACKS}
        run = {f.name: getattr(self.trainer.options, f.name) for f in fields(RunOptions) if f.name not in own}
        run["trackers"] = trackers
        if run["checkpoint_dir"] is not None:
            run["checkpoint_dir"] = Path(run["checkpoint_dir"]) / f"guide-{index}"
            run["resume"] = "never" if run["resume"] == "never" else "auto"
        return run


def guide_recipe(recipe: Recipe, model: str | None = None) -> Recipe:
    """The recipe that trains a frozen guide of ``recipe``.

    :param recipe: A recipe of method ``bgat``.
    :param model: Which of its guides; None leaves the model of the guide's recipe.
    :raises ValueError: If ``recipe`` names none.
    """
    from art_lbgat.recipes import RECIPES

    if recipe.guide_recipe not in RECIPES:
        raise ValueError(
            f"guide_recipe: {recipe.id} has frozen guides, so it needs trained weights (guide_weights=...) or the id "
            f"of a recipe to train them by; got {recipe.guide_recipe!r}."
        )
    found = RECIPES[recipe.guide_recipe].override(
        data=recipe.data, image_size=recipe.image_size, selection=recipe.selection
    )
    return found if model is None else found.override(model=model)


def _load_guide(guide: PyTorchClassifier, weights: Any) -> None:
    try:
        load_weights(guide.model, weights)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise type(error)(f"guide_weights: {error}") from error


def training_images(recipe: Recipe, data: DataSet) -> Images:
    """What is trained on: the training part; with ``selection="test"`` the validation part too, as in the papers.

    :param recipe: The recipe; its ``selection`` counts.
    :param data: Its data set.
    """
    train, held = data.train_images, data.validation_images
    if recipe.selection != "test":
        return train
    return Images(np.concatenate([train.x, held.x]), np.concatenate([train.y, held.y]), train.scale)


def fit_options(recipe: Recipe, data: DataSet) -> dict[str, Any]:
    """What ``fit`` is given beside the training images.

    :param recipe: The recipe.
    :param data: Its data set.
    """
    validation = None
    if recipe.keep != "last":
        validation = data.test if recipe.selection == "test" else data.validation
    return {
        "batch_size": recipe.batch_size,
        "nb_epochs": recipe.nb_epochs,
        "scheduler": recipe.schedule,
        "augmentation": None if recipe.augmentation == "none" else recipe.augmentation,
        "validation_data": validation,
    }


def load_recipe_data(recipe: Recipe, root: str | Path | None, *, seed: int = 0, limit: int | None = None) -> DataSet:
    """The data set of a recipe, in the size that it asks for.

    :param recipe: The recipe.
    :param root: Where its data lies; None for the digits.
    :param seed: Seed of the validation split and of ``limit``.
    :param limit: Use only so many training images.
    :raises FileNotFoundError: If the data are not there, with what to put where.
    :raises ValueError: Without the root that it needs.
    """
    size = {} if recipe.image_size is None else {"size": recipe.image_size}
    return load_data(recipe.data, root, seed=seed, limit=limit, **size)


def build(
    recipe: Recipe,
    root: str | Path | None = None,
    *,
    seed: int = 0,
    data: DataSet | None = None,
    limit: int | None = None,
    guide_weights: str | Path | Mapping[str, Any] | Sequence[Any] | None = None,
    device_type: str | None = None,
    verbose: bool = True,
    run: Mapping[str, Any] | None = None,
    guide_trackers: Sequence[Sequence[Tracker]] = (),
) -> Experiment:
    """Classifier, guides, trainer and data of a recipe.

    :param recipe: The recipe.
    :param root: Where its data lies; not needed for the digits.
    :param seed: Seed of the validation split, of initial weights, order and attacks.
    :param data: The data set, instead of loading it from ``root``.
    :param limit: Use only so many training images.
    :param guide_weights: Trained weights of the guides, a file or state dict, or one for each.
    :param device_type: ``"cpu"`` or ``"gpu"``; None takes a GPU where there is one.
    :param verbose: Show a progress bar.
    :param run: Fields of :class:`~art_lbgat.RunOptions` that are none of the recipe, such as ``checkpoint_dir`` or
        ``precision``.
    :param guide_trackers: The ``trackers`` of each frozen guide, if it is trained.
    :return: The experiment; global random generators are left as found.
    :raises FileNotFoundError: Missing data or weights.
    :raises ValueError: Weights that do not fit.
    """
    from art_lbgat.recipes import RECIPES

    check_seed(seed, maximum=LARGEST_SEED)
    check_flag(verbose, "verbose")
    if data is not None:
        check_kind(data, "data", DataSet)
    if limit is not None:
        check_count(limit, "limit")
    how = recipe.run_options(seed, verbose, **(run or {}))  # checked before anything is loaded
    if data is None:
        data = load_recipe_data(recipe, root, seed=seed, limit=limit)
    with preserved_randomness():
        torch.manual_seed(seed)
        shape = data.input_shape
        classifier = recipe_classifier(recipe, recipe.model, data.nb_classes, shape, device_type)
        frozen = recipe.method == "bgat" and recipe.guide_recipe in RECIPES
        guides = [
            recipe_classifier(
                guide_recipe(recipe, name) if frozen else recipe, name, data.nb_classes, shape, device_type
            )
            for name in recipe.guides
        ]
    if guide_weights is not None:
        given: list[Any] = list(guide_weights) if isinstance(guide_weights, (list, tuple)) else [guide_weights]
        if len(given) != len(guides):
            raise ValueError(f"guide_weights: expected {len(guides)}, one for each guide, got {len(given)}.")
        for guide, weights in zip(guides, given, strict=True):
            _load_guide(guide, weights)
    trainer = _TRAINERS[recipe.method](recipe, classifier, guides, how)
    trained = recipe.method != "bgat" or guide_weights is not None
    return Experiment(recipe, classifier, guides, trainer, data, seed, trained, guide_trackers)


def recipe_classifier(
    recipe: Recipe, name: str, nb_classes: int, input_shape: Sequence[int], device_type: str | None
) -> PyTorchClassifier:
    """A classifier as a recipe trains it, with fresh weights from torch's global generator.

    :param recipe: The recipe, for its optimizer.
    :param name: Name of the network.
    :param nb_classes: Number of classes.
    :param input_shape: Shape of one image.
    :param device_type: As :func:`~art_lbgat.models.create_classifier`.
    """
    wide = recipe.sub_block1 and name.startswith("wrn-")
    return create_classifier(
        create_model(name, nb_classes, input_shape, sub_block1=wide),
        nb_classes,
        input_shape,
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        device_type=device_type,
    )


def _attack(recipe: Recipe, classifier: PyTorchClassifier) -> PGDAttack | TRADESAttack:
    kind = TRADESAttack if recipe.attack == "trades" else PGDAttack
    norm = math.inf if recipe.norm == "inf" else 2.0
    return kind(classifier, norm=norm, eps=recipe.eps, eps_step=recipe.step, max_iter=recipe.max_iter)


def _natural(
    recipe: Recipe, classifier: PyTorchClassifier, guides: list[PyTorchClassifier], run: RunOptions
) -> BaseTrainer:
    return NaturalTrainer(classifier, options=run)


def _baseline(trainer: Callable[..., BaseTrainer], weight: str | None = None) -> Callable[..., BaseTrainer]:
    def make(
        recipe: Recipe, classifier: PyTorchClassifier, guides: list[PyTorchClassifier], run: RunOptions
    ) -> BaseTrainer:
        weights = {} if weight is None else {weight: recipe.regularizer_weight}
        return trainer(classifier, _attack(recipe, classifier), options=run, **weights)

    return make


def _guided(
    recipe: Recipe, classifier: PyTorchClassifier, guides: list[PyTorchClassifier], run: RunOptions
) -> BaseTrainer:
    options: dict[str, Any] = {
        "guidance": recipe.guidance,
        "regularizer": recipe.regularizer,
        "regularizer_weight": recipe.regularizer_weight if recipe.regularizer else None,
        "options": run,
    }
    if recipe.guidance == "kd":
        options["guidance"] = partial(kd, temperature=recipe.kd_temperature, weight=recipe.kd_weight)
    attack = _attack(recipe, classifier)
    if recipe.method == "bgat":
        return BGATTrainer(classifier, guides, attack, cache_guide=recipe.cache_guide, **options)
    return LBGATTrainer(classifier, guides[0], attack, guide_ce_weight=recipe.guide_ce_weight, **options)


_TRAINERS: dict[str, Callable[..., BaseTrainer]] = {
    "natural": _natural,
    "madry": _baseline(MadryTrainer),
    "fast-at": _baseline(FastATTrainer),
    "alp": _baseline(ALPTrainer, "alp_weight"),
    "trades": _baseline(TRADESTrainer, "beta"),
    "mart": _baseline(MARTTrainer, "mart_weight"),
    "bgat": _guided,
    "lbgat": _guided,
}
