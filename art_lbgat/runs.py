"""The directory of a run: its files, its configuration, and :func:`load`, which reads the trained classifier."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from art.estimators.classification import PyTorchClassifier

from art_lbgat.checks import check_choice, check_count, check_kind, check_path, check_seed
from art_lbgat.data import DataSet, Images, balanced_order
from art_lbgat.engine.checkpoint import read_checkpoint, read_newest
from art_lbgat.evaluation import evaluate
from art_lbgat.files import write_text
from art_lbgat.fingerprint import MAY_CHANGE, differences
from art_lbgat.preserve import preserved_randomness
from art_lbgat.recipes import Recipe
from art_lbgat.recipes.build import load_recipe_data, recipe_classifier
from art_lbgat.recipes.recipe import read_toml, write_toml
from art_lbgat.weights import load_weights

logger = logging.getLogger(__name__)

CONFIG, CHECKPOINTS, PAGE = "config.toml", "checkpoints", "report.html"
HISTORY, RESULTS, TABLE, WEIGHTS = "history.csv", "results.csv", "table.md", "model.safetensors"
TRAINED = "trained-on.txt"


def guide_file(index: int, ending: str = ".safetensors") -> str:
    """The name of a file about one guide."""
    return f"guide-{index}{ending}"


@dataclass(frozen=True)
class Config:
    """What ``config.toml`` says: the recipe and a table ``[training]``; its last three fields are facts of the data."""

    recipe: Recipe
    seed: int = 0
    limit: int | None = None
    root: str | None = None
    guide_weights: tuple[str, ...] = ()
    n_test: int | None = None
    n_autoattack: int = 0
    report: bool = True
    tracker: str | None = None
    input_shape: tuple[int, ...] = ()
    nb_classes: int | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_count(1 if self.n_test is None else self.n_test, "n_test")
        check_count(self.n_autoattack, "n_autoattack", minimum=0)

    @property
    def title(self) -> str:
        """What was trained on what; a folder has the name of its directory."""
        named = self.root is not None and self.recipe.data in ("folder", "npz")
        data = Path(str(self.root)).resolve().name if named else self.recipe.data
        return f"{self.recipe.objective} on {data}"

    def for_data(self, data: DataSet) -> Config:
        """With the facts of a data set."""
        names = tuple(map(str, data.class_names or ()))
        return replace(self, input_shape=tuple(data.input_shape), nb_classes=data.nb_classes, class_names=names)

    def load_data(self, root: str | Path | None = None) -> DataSet:
        """The data as they are split in training, from another place if one is given."""
        return load_recipe_data(self.recipe, root or self.root, seed=self.seed, limit=self.limit)

    def write_with(self, data: DataSet, directory: Path) -> None:
        """Write ``config.toml``, and a hash of every image that is trained on, except copies of those held out."""
        self.for_data(data).write(directory)
        parts = (data.train_images, data.validation_images, data.test_images)  # each is hashed once, however often
        trained, held, test = (set(part.digests()) for part in parts)
        trained = (trained | held if self.recipe.run.selection == "test" else trained - held) - test
        write_text(directory / TRAINED, "".join(f"{each}\n" for each in sorted(trained)))

    def as_toml(self) -> dict[str, Any]:
        """As it is written."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "recipe"}
        if self.root is not None:
            values["root"] = str(Path(self.root).resolve())
        values["guide_weights"] = [str(Path(each).resolve()) for each in self.guide_weights]
        said = {name: value for name, value in values.items() if value not in (None, (), [])}
        return {**self.recipe.as_toml(), "training": said}

    def write(self, directory: Path) -> None:
        """Write ``config.toml`` into a directory, which is made."""
        directory.mkdir(parents=True, exist_ok=True)
        write_toml(directory / CONFIG, self.as_toml())

    @classmethod
    def read(cls, path: str | Path) -> Config:
        """Read ``config.toml``, or the file of a recipe, which says less; an unknown field is a TypeError."""
        recipe, values = Recipe.read(path), check_kind(read_toml(path).get("training", {}), "training", dict)
        names = [each.name for each in fields(cls) if each.name != "recipe"]
        try:
            given: dict[str, Any] = {check_choice(name, "field", names): value for name, value in values.items()}
        except ValueError as error:
            raise TypeError(f"training: {error}") from None
        lists: dict[str, Any] = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(recipe, **given | lists)

    def differences_from(self, other: Config) -> list[str]:
        """Lines ``name: the other's -> ours`` for whatever makes another run of it."""
        free = {"run", "published", "source", "notes", *MAY_CHANGE} - {"nb_epochs"}
        old, new = other.recipe.as_dict(), self.recipe.as_dict()
        for values, each in ((old, other), (new, self)):
            values |= {**values["run"], "seed": each.seed, "limit": each.limit}
        return [line for name in new if name not in free for line in differences(old[name], new[name], name)]


@dataclass(frozen=True)
class Run:
    """What :func:`load` gives.

    :param name: The objective that it was trained by, and what it is if it is not the kept weights of a run.
    :param classifier: The trained classifier.
    :param guides: Its guides whose weights are in the directory.
    :param config: The configuration: recipe, seed, where the data lay, ...
    :param directory: The directory of the run.
    """

    name: str
    classifier: PyTorchClassifier
    guides: list[PyTorchClassifier]
    config: Config
    directory: Path

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.config.recipe

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, or none where the data have none."""
        return list(self.config.class_names)

    def matched(self, data: DataSet) -> DataSet:
        """A data set with the classes of this run, by their names; those without names are called by their numbers."""
        count = self.classifier.nb_classes
        own = self.class_names or [str(i) for i in range(count)]
        names = list(data.class_names) or [str(i) for i in range(data.nb_classes)]
        if not data.class_names and data.nb_classes <= count and not all(map(str.isdecimal, own)):
            return data
        if not set(names) <= set(own):
            raise ValueError(f"root: expected the classes that {self.directory} was trained on, {own}, got {names}.")
        order = np.array([own.index(name) for name in names])
        parts: dict[str, Any] = {name: Images(part.x, order[part.y], part.scale)
                 for name, part in vars(data).items() if isinstance(part, Images)}  # fmt: skip
        return replace(data, **parts, nb_classes=count, class_names=tuple(self.class_names))

    def check_unseen(self, images: Images, *, allow: bool = False) -> str:
        """Refuse images that it was trained on, or say how many there are."""
        path, said = self.directory / TRAINED, ""
        if path.is_file():
            trained = set(path.read_text(encoding="utf-8").split())
            count = sum(each in trained for each in images.digests())
            said = f"{count} of {len(images)} images were trained on" if count else ""
        elif self.recipe.data == "folder":
            said = "it is not known which images were trained on"
        if said and not allow:
            expected = "expected others, or --allow-trained, which labels the results"
            raise ValueError(f"root: {said} in {self.directory}; {expected}.")
        return said

    @property
    def eps(self) -> float:
        """The radius that it was trained with."""
        return self.recipe.eps

    @property
    def norm(self) -> str:
        """``"inf"`` or ``"2"``."""
        return self.recipe.norm


def load(path: str | Path, device_type: str | None = None) -> Run:
    """The classifier of a run of ``art-lbgat train``, or of one under ``models`` of a study or a demo.

    :param path: The directory (its kept weights, or those of the newest checkpoint of an unfinished run), or a file of
        weights or a checkpoint in it.
    :param device_type: ``"cpu"`` or ``"gpu"``; None takes a GPU where there is one.
    :return: Classifier, guides, class names, recipe, eps and norm; global random generators are unchanged.
    :raises FileNotFoundError: If there is no such path, or there are no weights in it yet.
    :raises ValueError: If there is no ``config.toml`` in or above it, or weights do not fit.
    """
    path = check_path(path, "path")
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file or directory {path}; expected that of a run.")
    around = [path, *path.resolve().parents][:4]
    directory = next((each for each in around if (each / CONFIG).is_file()), None)
    if directory is None:
        models = sorted(each.parent for each in path.glob(f"models/*/{CONFIG}")) if path.is_dir() else []
        hint = f"; it is a study, expected one of {', '.join(map(str, models))}" if models else ""
        raise ValueError(f"path: there is no {CONFIG} in or above {path} that says which network it is{hint}.")
    config = Config.read(directory / CONFIG)
    recipe = config.recipe
    files = {guide_file(index): model for index, model in enumerate(recipe.guides)}
    model, name = files.get(path.name, recipe.model), recipe.objective
    if path.name in files:
        name = f"guide {list(files).index(path.name)} of {name}"
    elif path.resolve() not in {(directory / each).resolve() for each in ("", WEIGHTS, CONFIG)}:
        name += f", {path.name}"
    classifier = _with_weights(directory, config, model, _weights(path, directory), device_type)
    guides = [_with_weights(directory, config, model, directory / file, device_type)
              for file, model in files.items() if (directory / file).is_file()]  # fmt: skip
    return Run(name, classifier, guides, config, directory)


def _with_weights(
    directory: Path, config: Config, model: str, weights: Path | Mapping[str, Any], device_type: str | None
) -> PyTorchClassifier:
    if config.nb_classes is None or not config.input_shape:
        what = "does not say input_shape and nb_classes; expected one that `art-lbgat train` wrote"
        raise ValueError(f"path: {directory / CONFIG} {what}.")
    with preserved_randomness():
        made = recipe_classifier(config.recipe, model, config.nb_classes, config.input_shape, device_type)
    load_weights(made.model, weights)
    return made


def _weights(path: Path, directory: Path) -> Path | Mapping[str, Any]:
    """What is asked for, or the weights that were kept, or those of the newest checkpoint of an unfinished run."""
    if path.name.startswith("step-"):
        return dict(read_checkpoint(path).state["models"]["classifier"])
    if path.is_file() and path.name != CONFIG:
        return path
    if (directory / WEIGHTS).is_file():
        return directory / WEIGHTS
    fits = sorted((directory / CHECKPOINTS).glob("fit-*"))
    found = read_newest(fits[-1]) if fits else None
    if found is None:
        raise FileNotFoundError(f"path: there are no weights and no checkpoint in {directory} yet.")
    logger.warning(
        "the run in %s has not ended: these are its weights after %s; `art-lbgat train --output %s --resume` ends it.",
        directory, found.path.name, directory,
    )  # fmt: skip
    return dict(found.state["models"]["classifier"])


def evaluation_images(data: DataSet, n: int | None = None, part: str = "test") -> Images:
    """``n`` images of a part of the data, or all; every beginning has the same number of each class."""
    check_count(1 if n is None else n, "n")
    images = data.test_images if part == "test" else data.validation_images
    return images.subset(balanced_order(images.y)[:n])


def evaluate_images(
    classifier: PyTorchClassifier | Mapping[str, PyTorchClassifier], x: Any, y: Any, n_autoattack: int = 0,
    n: int | None = None, *, attacks: Sequence[str] = ("natural", "pgd-20"), norm: str = "inf", label: str = "",
    **how: Any,
) -> pandas.DataFrame:  # fmt: skip
    """The table of ``evaluate`` of the first ``n`` images, with AutoAttack on the first ``n_autoattack``, if any.

    A ``label`` is put before the flags of every row.
    """
    how["norm"] = "inf" if norm == "inf" else 2
    tables = [evaluate(classifier, x[:n], y[:n], attacks=tuple(attacks), **how)]
    if check_count(n_autoattack, "n_autoattack", minimum=0):
        how.pop("sources", None)
        tables.append(evaluate(classifier, x[:n_autoattack], y[:n_autoattack], attacks=("autoattack",), **how))
    table = pandas.concat(tables, ignore_index=True)
    if label:
        table["flags"] = [f"{label}; {flags}" if flags else label for flags in table["flags"]]
    return table
