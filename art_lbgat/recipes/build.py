"""From a recipe to the objects that run it: data, classifiers, trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks import NFGSMAttack, PGDAttack, TRADESAttack
from art_lbgat.checks import check_count, check_kind, check_optional, check_seed
from art_lbgat.data import DataSet, Images, load_data
from art_lbgat.data.datasets import LARGEST_SEED
from art_lbgat.engine.options import RunOptions, check_keyword
from art_lbgat.engine.trackers import Tracker
from art_lbgat.losses import kd
from art_lbgat.models import create_classifier, create_model
from art_lbgat.preserve import preserved_randomness
from art_lbgat.trainers import METHODS
from art_lbgat.trainers.base import BaseTrainer
from art_lbgat.trainers.guided import GuidedTrainer
from art_lbgat.weights import load_weights

if TYPE_CHECKING:
    from art_lbgat.recipes.recipe import Recipe

CALL_FIELDS = ("seed", "verbose", "trackers", "on_step", "checkpoint_dir", "resume")
"""Fields of RunOptions that belong to one run; the others are part of a recipe."""


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
        """Train the frozen guides, each by the recipe that ``guide_recipe`` names.

        They run as the student does; with ``checkpoint_dir`` their checkpoints are in ``guide-0`` and so on below it.
        """
        recipe, ours = self.recipe.for_guide(), self.trainer.options
        images = training_images(self.recipe, self.data)
        for index, guide in enumerate(self.guides):
            trackers = self.guide_trackers[index] if index < len(self.guide_trackers) else ()
            options = replace(recipe.run, seed=self.seed, verbose=ours.verbose, trackers=trackers)
            if ours.checkpoint_dir is not None:
                place = Path(ours.checkpoint_dir) / f"guide-{index}"
                resume = "never" if ours.resume == "never" else "auto"
                options = replace(options, checkpoint_dir=place, resume=resume)
            _trainer(recipe, guide, [], options).fit(images, **fit_options(recipe, self.data))
        self.guides_trained = True


def training_images(recipe: Recipe, data: DataSet) -> Images:
    """What is trained on: the training part; with ``selection="test"`` the validation part too, as in the papers."""
    train, held = data.train_images, data.validation_images
    if recipe.run.selection != "test":
        return train
    return Images(np.concatenate([train.x, held.x]), np.concatenate([train.y, held.y]), train.scale)


def fit_options(recipe: Recipe, data: DataSet) -> dict[str, Any]:
    """What ``fit`` is given beside the training images."""
    validation = None
    if recipe.run.keep != "last":
        validation = data.test if recipe.run.selection == "test" else data.validation
    return {
        "batch_size": recipe.batch_size,
        "nb_epochs": recipe.nb_epochs,
        "scheduler": recipe.schedule,
        "augmentation": recipe.augmentation,
        "validation_data": validation,
    }


def load_recipe_data(recipe: Recipe, root: str | Path | None, *, seed: int = 0, limit: int | None = None) -> DataSet:
    """The data set of a recipe, in the size that it asks for; ``seed`` decides the validation split and ``limit``."""
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
    guide_trackers: Sequence[Sequence[Tracker]] = (),
    **run: Any,
) -> Experiment:
    """See ``Recipe.build``; ``guide_trackers`` are the trackers of each frozen guide, if it is trained."""
    check_seed(seed, maximum=LARGEST_SEED)
    check_optional(check_kind, data, "data", kind=DataSet)
    check_optional(check_count, limit, "limit")
    for name in run:  # checked before anything is loaded
        check_keyword(name, [each.name for each in fields(RunOptions)])
        if name not in CALL_FIELDS:
            raise TypeError(f"run: {name} is a field of the recipe; expected it in override({name}=...).")
    options = replace(recipe.run, **{**run, "seed": seed})
    if data is None:
        data = load_recipe_data(recipe, root, seed=seed, limit=limit)
    frozen = bool(recipe.guides) and not METHODS[recipe.method].train_guides
    by_own_recipe = frozen and (guide_weights is None or recipe.guide_recipe is not None)
    taken = METHODS[recipe.method].takes_loss or recipe.guidance == "mse+ce"
    student = recipe if taken else replace(recipe, label_smoothing=0.0)
    models = [(student, recipe.model)]
    models += [(recipe.for_guide(name) if by_own_recipe else recipe, name) for name in recipe.guides]
    with preserved_randomness():
        torch.manual_seed(seed)
        made = [recipe_classifier(own, name, data.nb_classes, data.input_shape, device_type) for own, name in models]
    classifier, *guides = made
    if guide_weights is not None:
        given: list[Any] = list(guide_weights) if isinstance(guide_weights, (list, tuple)) else [guide_weights]
        if len(given) != len(guides):
            raise ValueError(f"guide_weights: expected {len(guides)}, one for each guide, got {len(given)}.")
        try:
            for guide, weights in zip(guides, given, strict=True):
                load_weights(guide.model, weights)
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise type(error)(f"guide_weights: {error}") from error
    trainer, trained = _trainer(recipe, classifier, guides, options), not frozen or guide_weights is not None
    return Experiment(recipe, classifier, guides, trainer, data, seed, trained, guide_trackers)


def recipe_classifier(
    recipe: Recipe, name: str, nb_classes: int, input_shape: Sequence[int], device_type: str | None
) -> PyTorchClassifier:
    """The network ``name`` with the optimizer of a recipe, and fresh weights from torch's global generator."""
    model = create_model(name, nb_classes, input_shape, sub_block1=recipe.sub_block1 and name.startswith("wrn-"))
    names = ("learning_rate", "momentum", "weight_decay", "nesterov", "decay_norms", "label_smoothing")
    settings = {each: getattr(recipe, each) for each in names}
    return create_classifier(model, nb_classes, input_shape, device_type=device_type, **settings)


def _trainer(
    recipe: Recipe, classifier: PyTorchClassifier, guides: list[PyTorchClassifier], options: RunOptions
) -> BaseTrainer:
    method = METHODS[recipe.method]
    make: Callable[..., BaseTrainer] = method
    if recipe.attack is None:
        return make(classifier, options=options)
    kind: Any = {"trades": TRADESAttack, "n-fgsm": NFGSMAttack, "pgd": PGDAttack}[recipe.attack]
    norm = math.inf if recipe.norm == "inf" else 2.0
    attack = kind(classifier, norm=norm, eps=recipe.eps, eps_step=recipe.step, max_iter=recipe.max_iter)
    given = [guides[0] if method.train_guides else guides] if guides else []
    if not issubclass(method, GuidedTrainer):
        weight = {} if method.weight_name is None else {method.weight_name: recipe.regularizer_weight}
        return make(classifier, *given, attack, options=options, **weight)
    settings: dict[str, Any] = {
        "preset": "paper",  # a recipe says what it wants
        "guidance": recipe.guidance,
        "regularizer": recipe.regularizer,
        "regularizer_weight": recipe.regularizer_weight if recipe.regularizer else None,
        "options": options,
    }
    if not method.train_guides:
        settings["guide_rms"] = recipe.guide_rms
    if recipe.guidance == "kd":
        settings["guidance"] = partial(kd, temperature=recipe.kd_temperature, weight=recipe.kd_weight)
    if method.train_guides:
        settings["guide_ce_weight"] = recipe.guide_ce_weight
    return make(classifier, *given, attack, **settings)
