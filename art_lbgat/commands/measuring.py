"""What a training would cost, measured on two steps of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.commands.plan import Plan
from art_lbgat.data import DataSet
from art_lbgat.evaluation import evaluate
from art_lbgat.recipes.experiment import Experiment, guide_recipe, training_images
from art_lbgat.trainers import NaturalTrainer

_STEPS = 2


class Measured(NamedTuple):
    """Seconds and bytes.

    :param step: Seconds of a step.
    :param steps_per_epoch: Steps of an epoch.
    :param guides: Seconds of the training of frozen guides.
    :param training: Seconds of all steps.
    :param validation: Seconds of all validations.
    :param judging: Seconds of natural accuracy and PGD-20 on the test set.
    :param memory: Peak of the memory: of the GPU, or of the whole process on the CPU; None where it cannot be had.
    """

    step: float
    steps_per_epoch: int
    guides: float
    training: float
    validation: float
    judging: float
    memory: int | None


def measure(plan: Plan, data: DataSet, device_type: str | None, n_test: int | None = None) -> Measured:
    """Train two steps after two to warm up, with everything on that comes on later in the run, on models of their own.

    :param plan: The training.
    :param data: Its data.
    :param device_type: Where it runs.
    :param n_test: Images that are judged in the end; None for all.
    """
    recipe = plan.recipe
    late = {"awp_start_epoch": 1, "eps_warmup_epochs": 0, "patience": None, "on_collapse": "warn"}
    short = recipe.override(keep="last", selection="validation", validate_every=1, **late)
    run = {name: value for name, value in plan.run.items() if name not in ("checkpoint_every", "on_nonfinite")}
    run.pop("max_iter_warmup_epochs", None)
    weights = list(plan.guide_weights) or None
    experiment = short.build(
        data=data, seed=plan.seed, guide_weights=weights, device_type=device_type, verbose=False, run=run
    )
    cuda = experiment.classifier.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    n = len(training_images(recipe, data).y)
    step = _seconds_of_step(experiment)
    steps = -(-n // recipe.batch_size)
    part = data.test_images if recipe.selection == "test" else data.validation_images
    image = _seconds_of_image(experiment.classifier, part.subset(np.arange(min(len(part.y), 128))), recipe.eps)
    validated = 0 if recipe.keep == "last" else -(-recipe.nb_epochs // recipe.validate_every)
    return Measured(
        step,
        steps,
        0.0 if experiment.guides_trained else _seconds_of_guides(experiment, n),
        step * steps * recipe.nb_epochs,
        image * len(part.y) * validated,
        image * min(n_test or len(data.test_images.y), len(data.test_images.y)),
        torch.cuda.max_memory_allocated() if cuda else _peak_of_process(),
    )


def _seconds_of_step(experiment: Experiment) -> float:
    recipe = experiment.recipe
    images = training_images(recipe, experiment.data)
    few = images.subset(np.arange(min(len(images.y), _STEPS * recipe.batch_size)))
    augmentation = None if recipe.augmentation == "none" else recipe.augmentation
    how: dict[str, Any] = {"batch_size": recipe.batch_size, "nb_epochs": 2, "augmentation": augmentation}
    logger = logging.getLogger("art_lbgat")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what it warns of is said when the training itself begins
    try:
        experiment.trainer.fit(few, **how)
    finally:
        logger.setLevel(level)
    return float(experiment.trainer.history["seconds"].iloc[-1]) / max(1, -(-len(few.y) // recipe.batch_size))


def _seconds_of_guides(experiment: Experiment, n: int) -> float:
    total = 0.0
    for guide in experiment.guides:
        recipe = guide_recipe(experiment.recipe).override(keep="last")
        trainer = NaturalTrainer(guide, options=recipe.run_options(experiment.seed, verbose=False))
        alone = Experiment(recipe, guide, [], trainer, experiment.data, experiment.seed, guides_trained=True)
        total += _seconds_of_step(alone) * -(-n // recipe.batch_size) * recipe.nb_epochs
    return total


def _seconds_of_image(classifier: PyTorchClassifier, images: Any, eps: float) -> float:
    x, y = images.arrays()
    table = evaluate(classifier, x, y, eps=eps, attacks=("natural", "pgd-20"))
    return float(table["seconds"].sum()) / len(x)


def _peak_of_process() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def parameters(classifiers: Sequence[PyTorchClassifier]) -> list[int]:
    """Number of parameters of each.

    :param classifiers: The classifiers.
    """
    return [sum(p.numel() for p in classifier.model.parameters()) for classifier in classifiers]
