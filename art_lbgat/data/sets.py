"""Data sets as arrays, and seeded stratified splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_lbgat.checks import check_number

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class DataSet:
    """Images in [0, 1], float32, channels first, with index labels, in three disjoint parts.

    :param name: Name of the data set.
    :param train: ``(x, y)`` to train on.
    :param validation: ``(x, y)`` held out of the training data, for every choice that is made.
    :param test: ``(x, y)`` for the numbers that are reported, and for nothing else.
    :param nb_classes: Number of classes.
    """

    name: str
    train: Arrays
    validation: Arrays
    test: Arrays
    nb_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(C, H, W)``."""
        return tuple(self.train[0].shape[1:])


def split(x: NDArray[Any], y: NDArray[Any], fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """Two disjoint parts with the same proportion of each class, as near as whole samples allow.

    :param x: Samples, ``(n, ...)``.
    :param y: Index labels, ``(n,)``.
    :param fraction: Share of the second part, in (0, 1).
    :param seed: Same seed, same split.
    :return: ``(x, y)`` of the first and of the second part, in the order of the input.
    :raises ValueError: If ``fraction`` is not in (0, 1), or leaves a part without some class.
    """
    from sklearn.model_selection import train_test_split

    check_number(fraction, "fraction", exclusive=True)
    if fraction >= 1:
        raise ValueError(f"fraction: expected a number in (0, 1), got {fraction}.")
    first, second = train_test_split(np.arange(len(x)), test_size=fraction, random_state=seed, stratify=y)
    first, second = np.sort(first), np.sort(second)
    return (x[first], y[first]), (x[second], y[second])


def load_digits(seed: int = 0, validation: float = 0.125, test: float = 1 / 3) -> DataSet:
    """Scikit-learn's 1,797 real 8x8 images of handwritten digits: embedded, no download.

    :param seed: Seed of the split into training and validation part. The test part is always the same, so that no
        choice made on validation data, with whatever seed, has seen a test image.
    :param validation: Share of the training part that is held out.
    :param test: Share of all images that is kept for testing (599 images by default).
    :return: Images ``(n, 1, 8, 8)`` in [0, 1].
    """
    from sklearn.datasets import load_digits as load

    bunch = load()
    x = (bunch.images[:, None] / 16.0).astype(np.float32)
    y = bunch.target.astype(np.int64)
    rest, tested = split(x, y, test, seed=0)
    trained, validated = split(*rest, validation, seed)
    return DataSet("digits", trained, validated, tested, nb_classes=10)


def load_image_folder(
    root: str | Path, name: str = "images", seed: int = 0, validation: float = 0.1, limit: int | None = None
) -> DataSet:
    """Images from a tree ``root/train/<class>/*`` and ``root/test/<class>/*`` (torchvision's ``ImageFolder``).

    :param root: The folder that holds ``train`` and ``test``; all images of one size.
    :param name: Name of the data set.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, 3, H, W)`` in [0, 1].
    :raises FileNotFoundError: If a part is missing, with the layout that is expected.
    :raises ValueError: If the parts have different classes.
    """
    from torchvision.datasets import ImageFolder

    parts = {}
    for part in ("train", "test"):
        folder = Path(root) / part
        if not folder.is_dir():
            raise FileNotFoundError(f"root: expected folders {folder}/<class>/<image>, but {folder} does not exist.")
        parts[part] = ImageFolder(str(folder))
    if parts["train"].classes != parts["test"].classes:
        raise ValueError(f"root: train has the classes {parts['train'].classes}, test has {parts['test'].classes}.")
    train = _read(parts["train"], limit, seed)
    trained, validated = split(*train, validation, seed)
    return DataSet(name, trained, validated, _read(parts["test"]), nb_classes=len(parts["train"].classes))


def load_cifar10(root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None) -> DataSet:
    """CIFAR-10 from torchvision's files or from an ``ImageFolder`` tree, whichever is in ``root``; no download.

    :param root: Holds ``cifar-10-batches-py`` (as torchvision unpacks it) or ``train`` and ``test`` folders of classes.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, 3, 32, 32)`` in [0, 1].
    :raises FileNotFoundError: If neither is there, with what to put where.
    """
    from torchvision.datasets import CIFAR10

    folder = Path(root)
    if (folder / "train").is_dir():
        return load_image_folder(folder, "cifar10", seed, validation, limit)
    if not (folder / CIFAR10.base_folder).is_dir():
        raise FileNotFoundError(
            f"root: no CIFAR-10 in {folder}. Put torchvision's folder {CIFAR10.base_folder} there "
            f"(torchvision.datasets.CIFAR10({str(folder)!r}, download=True)), or folders train/<class>/<image> and "
            "test/<class>/<image>."
        )
    raw = [CIFAR10(str(folder), train=train) for train in (True, False)]
    (x, y), test = ((_to_float(part.data), np.asarray(part.targets, dtype=np.int64)) for part in raw)
    if limit is not None:
        chosen = _limited(y, limit, seed)
        x, y = x[chosen], y[chosen]
    trained, validated = split(x, y, validation, seed)
    return DataSet("cifar10", trained, validated, test, nb_classes=10)


def _limited(y: NDArray[np.int64], limit: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of at most ``limit`` samples, the same number of each class, in the order of the input."""
    if limit is None or limit >= len(y):
        return np.arange(len(y))
    per_class = max(1, limit // len(np.unique(y)))
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(y == label))[:per_class] for label in np.unique(y)]
    return np.sort(np.concatenate(chosen))


def _read(folder: Any, limit: int | None = None, seed: int = 0) -> Arrays:
    y = np.asarray(folder.targets, dtype=np.int64)
    chosen = _limited(y, limit, seed)
    images = np.stack([np.asarray(folder.loader(folder.samples[i][0])) for i in chosen])
    return _to_float(images), y[chosen]


def _to_float(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray((images / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2))
