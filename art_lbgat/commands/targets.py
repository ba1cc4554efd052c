"""Classifiers as they are named on a command line: the directory of a training, a zoo name, ``module:function``."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from art.estimators.classification import PyTorchClassifier

from art_lbgat.checks import check_count
from art_lbgat.commands.plan import Plan
from art_lbgat.commands.run_directory import RunDirectory
from art_lbgat.data import DataSet, load_data
from art_lbgat.engine.checkpoint import read_checkpoint, read_newest
from art_lbgat.preserve import preserved_randomness
from art_lbgat.recipes.experiment import load_recipe_data, recipe_classifier
from art_lbgat.weights import load_weights

logger = logging.getLogger(__name__)

EXPECTED = "the directory of a run, a checkpoint or weights in it, a name of RobustBench's zoo, or module:function"
_NORMS = {"Linf": "inf", "L2": "2"}


@dataclass(frozen=True)
class Target:
    """A classifier, and what is known of how it is to be judged.

    :param name: What it is called.
    :param classifier: The classifier.
    :param eps: The radius that it was trained or is ranked with, or None.
    :param norm: ``"inf"`` or ``"2"``, or None.
    :param data: Name of its data set, or None.
    :param plan: The training that it comes from, or None.
    :param directory: The directory of that.
    """

    name: str
    classifier: PyTorchClassifier
    eps: float | None = None
    norm: str | None = None
    data: str | None = None
    plan: Plan | None = None
    directory: RunDirectory | None = None

    @property
    def class_names(self) -> list[str]:
        """The names of its classes, where its run noted them."""
        return [] if self.directory is None else [str(each) for each in self.directory.facts().get("class_names", ())]

    def guide(self, device_type: str | None) -> PyTorchClassifier | None:
        """Its guide, where there is one and its weights are in the directory.

        :param device_type: ``"cpu"`` or ``"gpu"``; None takes a GPU where there is one.
        """
        if self.plan is None or self.directory is None or not self.directory.guide_weights(0).is_file():
            return None
        guide = _fresh(self.directory, self.plan, self.plan.recipe.guides[0], device_type)
        load_weights(guide.model, self.directory.guide_weights(0))
        return guide

    def load_data(self, name: str | None, root: Path | None) -> DataSet:
        """The images that it is judged on.

        :param name: Name of the data set; None for its own.
        :param root: Where it lies; None for where it lay in training.
        :raises ValueError: If nothing says which data.
        """
        own = name in (None, self.data)
        name = self.data if name is None else name
        if name is None:
            raise ValueError("data: expected the name of a data set (--data), since the target names none.")
        if self.plan is None or not own:
            return load_data(name, root)
        return load_recipe_data(self.plan.recipe, root or self.plan.root, seed=self.plan.seed)


def find_target(
    text: str,
    *,
    dataset: str = "cifar10",
    threat_model: str = "Linf",
    model_dir: Path = Path("models"),
    device_type: str | None = None,
) -> Target:
    """The classifier that a text names.

    :param text: A path, ``module:function`` (called without arguments), or a name of the zoo.
    :param dataset: Of the zoo.
    :param threat_model: Of the zoo.
    :param model_dir: Directory of the zoo's weights.
    :param device_type: Where it is to run; a function of a module decides itself.
    :raises FileNotFoundError: If there is no such path, or weights of the zoo are missing.
    :raises TypeError: If the function does not return a ``PyTorchClassifier``.
    :raises ValueError: If it names nothing, or weights that do not fit.
    """
    path = Path(text)
    if path.exists():
        return _of_run(path, device_type)
    if path.suffix in (".safetensors", ".pt", ".toml") or len(path.parts) > 1:
        raise FileNotFoundError(f"target: there is no file or directory {text}; expected {EXPECTED}.")
    if ":" in text:
        return _of_function(text)
    return _of_zoo(text, dataset, threat_model, model_dir, device_type)


def _of_run(path: Path, device_type: str | None) -> Target:
    around = [path, *path.resolve().parents][:4]
    directory = next((RunDirectory(each) for each in around if (each / "config.toml").is_file()), None)
    if directory is None:
        models = sorted(each.parent for each in path.glob("models/*/config.toml")) if path.is_dir() else []
        hint = f"; it is a study, expected one of {', '.join(map(str, models))}" if models else ""
        raise ValueError(f"target: there is no config.toml in or above {path} that says which network it is{hint}.")
    plan = directory.plan()
    recipe = plan.recipe
    model, name = recipe.model, recipe.objective
    guide = next((i for i in range(len(recipe.guides)) if path.name == directory.guide_weights(i).name), None)
    if guide is not None:
        model, name = recipe.guides[guide], f"guide {guide} of {recipe.objective}"
    elif path.resolve() not in {each.resolve() for each in (directory.path, directory.weights, directory.config)}:
        name = f"{recipe.objective}, {path.name}"
    classifier = _fresh(directory, plan, model, device_type)
    load_weights(classifier.model, _weights(path, directory))
    return Target(name, classifier, recipe.eps, recipe.norm, recipe.data, plan, directory)


def _fresh(directory: RunDirectory, plan: Plan, name: str, device_type: str | None) -> PyTorchClassifier:
    facts = directory.facts()
    if not {"input_shape", "nb_classes"} <= facts.keys():
        raise ValueError(
            f"target: {directory.config} does not say input_shape and nb_classes; expected one that "
            "`art-lbgat train` wrote."
        )
    nb_classes, shape = check_count(facts["nb_classes"], "nb_classes", minimum=2), tuple(facts["input_shape"])
    with preserved_randomness():
        return recipe_classifier(plan.recipe, name, nb_classes, shape, device_type)


def _weights(path: Path, directory: RunDirectory) -> Path | Mapping[str, Any]:
    """What is asked for, or the weights that were kept, or those of the newest checkpoint of a run that goes on."""
    if path.is_file() and path.resolve() != directory.config.resolve():
        return path
    if path.name.startswith("step-"):
        return dict(read_checkpoint(path).parts["models"]["classifier"])
    if directory.weights.is_file():
        return directory.weights
    fits = sorted(directory.checkpoints.glob("fit-*"))
    found = read_newest(fits[-1]) if fits else None
    if found is None:
        raise FileNotFoundError(f"target: there are no weights and no checkpoint in {directory.path} yet.")
    logger.warning(
        "the run in %s has not ended: these are its weights after %s. `art-lbgat train --output %s --resume` goes on.",
        directory.path, found.path.name, directory.path,
    )  # fmt: skip
    return dict(found.parts["models"]["classifier"])


def _of_function(text: str) -> Target:
    module_name, _, function_name = text.partition(":")
    sys.path.insert(0, "")  # as python -m has it
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the code of a user raises
        raise ValueError(
            f"target: the module of {text!r} cannot be imported ({type(error).__name__}: {error})."
        ) from error
    finally:
        sys.path.remove("")
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"target: the module {module_name!r} has no function {function_name!r}; expected {EXPECTED}.")
    try:
        classifier = function()
    except Exception as error:  # likewise
        raise ValueError(
            f"target: {text}, called without arguments, failed ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(classifier, PyTorchClassifier):
        raise TypeError(f"target: {text} returned {type(classifier).__name__}; expected a PyTorchClassifier.")
    return Target(function_name, classifier)


def _of_zoo(name: str, dataset: str, threat_model: str, model_dir: Path, device_type: str | None) -> Target:
    from art_lbgat.robustbench import load_classifier
    from art_lbgat.robustbench.result import EPS

    try:
        classifier = load_classifier(name, dataset, threat_model, model_dir, device_type=device_type)
    except ValueError as error:
        if not str(error).startswith("name: "):
            raise
        raise ValueError(f"target: no path, and no name: {str(error).removeprefix('name: ')}") from error
    radius = EPS.get((dataset, threat_model))
    return Target(name, classifier, None if radius is None else radius.value, _NORMS.get(threat_model), dataset)
