"""Data sets in three disjoint parts, and seeded stratified splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_lbgat.checks import as_array, check_count, check_indices, check_path, check_seed, check_share, check_text
from art_lbgat.data.images import Images

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]
Indices = NDArray[np.int64]
LARGEST_SEED = 2**32 - 1  # of scikit-learn


@dataclass(frozen=True)
class DataSet:
    """Images as bytes, channels first, with index labels, in three disjoint parts.

    ``train``, ``validation`` and ``test`` are the same parts as arrays ``(x, y)``, float32 in [0, 1] and int64; each
    access makes a new copy, of four times the size.

    :param name: Name of the data set.
    :param train_images: What to train on.
    :param validation_images: Held out of the training data, for every choice that is made.
    :param test_images: For the numbers that are reported, and for nothing else.
    :param nb_classes: Number of classes.
    :param class_names: A name for each class, or none.
    """

    name: str
    train_images: Images
    validation_images: Images
    test_images: Images
    nb_classes: int
    class_names: Sequence[str] = ()

    @property
    def train(self) -> Arrays:
        """The training part as new arrays ``(x, y)``."""
        return self.train_images.arrays()

    @property
    def validation(self) -> Arrays:
        """The validation part as new arrays ``(x, y)``."""
        return self.validation_images.arrays()

    @property
    def test(self) -> Arrays:
        """The test part as new arrays ``(x, y)``."""
        return self.test_images.arrays()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(C, H, W)``."""
        return self.train_images.image_shape


def split_indices(y: NDArray[Any], fraction: float, seed: int, name: str = "fraction") -> tuple[Indices, Indices]:
    """Indices of two disjoint parts with the same proportion of each class, as near as whole samples allow.

    A class with a single sample is left in the first part.

    :param y: Index labels, ``(n,)``.
    :param fraction: Share of the second part, in (0, 1).
    :param seed: Same seed, same split.
    :param name: The name of the argument that ``fraction`` came from, for errors.
    :return: The indices of the first and of the second part, ascending.
    :raises TypeError: Arguments of another type.
    :raises ValueError: Labels that are none, a seed above 2**32 - 1; if ``fraction`` is not in (0, 1), or is too small
        or too large for each class to be in both.
    """
    from sklearn.model_selection import train_test_split

    check_share(fraction, check_text(name, "name"))
    check_seed(seed, maximum=LARGEST_SEED)
    y = check_indices(y)
    classes, counts = np.unique(y, return_counts=True)
    several = classes[counts > 1]
    candidates = np.arange(len(y)) if len(several) == len(classes) else np.flatnonzero(np.isin(y, several))
    second_size = int(np.ceil(fraction * len(candidates)))
    if len(several) == 0 or min(second_size, len(candidates) - second_size) < len(several):
        raise ValueError(
            f"{name}: {fraction:g} of {len(candidates)} samples leaves {second_size} for the second part and "
            f"{len(candidates) - second_size} for the first; expected at least one of each of the {len(several)} "
            "classes that have two samples or more in both."
        )
    first, second = train_test_split(candidates, test_size=fraction, random_state=seed, stratify=y[candidates])
    single = np.setdiff1d(np.arange(len(y)), candidates, assume_unique=True)
    return np.sort(np.concatenate([first, single])), np.sort(second)


def split(x: NDArray[Any], y: NDArray[Any], fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """The two parts of :func:`split_indices` as arrays.

    :param x: Samples, ``(n, ...)``.
    :param y: Index labels, ``(n,)``.
    :param fraction: Share of the second part, in (0, 1).
    :param seed: Same seed, same split.
    :return: ``(x, y)`` of the first and of the second part, in the order of the input.
    :raises ValueError: See :func:`split_indices`.
    """
    first, second = split_indices(y, fraction, seed)
    x, y = as_array(x, "x"), as_array(y, "y")
    if x.ndim == 0 or len(x) != len(y):
        raise ValueError(f"x: expected {len(y)} samples, one for each label, got shape {x.shape}.")
    return (x[first], y[first]), (x[second], y[second])


def check_split(root: Any, seed: Any, validation: Any, limit: Any) -> Path:
    """What every loader is given, before files are looked for.

    :param root: Where the data lie.
    :param seed: Seed of the split, at most 2**32 - 1.
    :param validation: Share of the training part, in (0, 1).
    :param limit: A number of images, or None.
    :return: ``root`` as a path.
    :raises TypeError: A value of another type.
    :raises ValueError: A value outside its range.
    """
    check_seed(seed, maximum=LARGEST_SEED)
    check_share(validation, "validation")
    if limit is not None:
        check_count(limit, "limit")
    return check_path(root, "root")


def parted(
    name: str,
    train: Images,
    test: Images,
    nb_classes: int,
    seed: int,
    validation: float,
    limit: int | None = None,
    class_names: Sequence[str] = (),
) -> DataSet:
    """A data set of a training part, of which some is held out, and a test part.

    :param name: Name of the data set.
    :param train: Training part.
    :param test: Test part.
    :param nb_classes: Number of classes.
    :param seed: Seed of the split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: See :func:`limited`.
    :param class_names: A name for each class, or none.
    :return: The data set.
    :raises ValueError: If a label is out of range, or the split is not possible.
    """
    for part, images in (("training", train), ("test", test)):
        if images.y.max() >= nb_classes:
            raise ValueError(
                f"y: expected class indices in [0, {nb_classes - 1}] in the {part} part of {name}, got "
                f"{images.y.max()}."
            )
    if limit is not None:
        train = train.subset(limited(train.y, limit, seed))
    try:
        first, second = split_indices(train.y, validation, seed, "validation")
    except ValueError as error:
        if limit is None:
            raise
        raise ValueError(f"limit: {limit} training images are too few. {error}") from error
    return DataSet(name, train.subset(first), train.subset(second), test, nb_classes, tuple(class_names))


def limited(y: NDArray[np.int64], limit: int | None, seed: int) -> Indices:
    """Indices of at most ``limit`` samples, the same number of each class (at least one), in the order of the input.

    :param y: Index labels, ``(n,)``.
    :param limit: How many, or None for all.
    :param seed: Seed of the choice.
    :return: The indices, ascending.
    :raises ValueError: If ``limit`` is below 1.
    """
    if limit is None or check_count(limit, "limit") >= len(y):
        return np.arange(len(y))
    per_class = max(1, limit // len(np.unique(y)))
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(y == label))[:per_class] for label in np.unique(y)]
    return np.sort(np.concatenate(chosen))


def missing(title: str, folder: Path, put: str) -> FileNotFoundError:
    """The error for data that are not there, or damaged.

    :param title: Title of the data set.
    :param folder: Where it was looked for.
    :param put: What to put there, and where to get it.
    :return: The error.
    """
    return FileNotFoundError(f"root: no {title} in {folder}, or a damaged one. {put} Nothing is downloaded for you.")


def balanced_order(y: NDArray[np.int64], seed: int = 0) -> Indices:
    """An order in which every beginning has the same number of each class, as near as the labels allow.

    Data sets are often sorted by class, so their first images are no sample of them; those of this order are, and
    smaller samples lie in larger ones.

    :param y: Index labels, ``(n,)``.
    :param seed: Seed of the order within each class.
    :return: All indices, each once.
    :raises TypeError: Arguments of another type.
    :raises ValueError: Labels that are none, a seed below 0.
    """
    y, seed = check_indices(y), check_seed(seed)
    shuffled = np.random.default_rng(seed).permutation(len(y))
    rank = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        members = shuffled[y[shuffled] == label]
        rank[members] = np.arange(len(members))
    return np.lexsort((y, rank))
