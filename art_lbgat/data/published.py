"""The data sets that come with scikit-learn or are read by torchvision; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from art_lbgat.checks import check_share
from art_lbgat.data.folders import load_image_folder
from art_lbgat.data.images import Images
from art_lbgat.data.sets import DataSet, check_split, missing, parted, split_indices

_CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_SVHN_PAGE = "http://ufldl.stanford.edu/housenumbers/"


def load_digits(seed: int = 0, validation: float = 0.125, test: float = 1 / 3, limit: int | None = None) -> DataSet:
    """Scikit-learn's 1,797 real 8x8 images of handwritten digits: embedded, no download.

    :param seed: Seed of the split into training and validation part. The test part is always the same, so that no
        choice made on validation data, with whatever seed, has seen a test image.
    :param validation: Share of the training part that is held out.
    :param test: Share of all images that is kept for testing (599 images by default).
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, 1, 8, 8)`` of values 0 to 16 (``scale`` 16).
    """
    check_split(".", seed, validation, limit)
    check_share(test, "test")
    from sklearn.datasets import load_digits as load

    bunch = load()
    images = Images(bunch.images[:, None].astype(np.uint8), bunch.target, scale=16.0)
    rest, tested = split_indices(images.y, test, seed=0, name="test")
    return parted("digits", images.subset(rest), images.subset(tested), 10, seed, validation, limit)


def load_cifar10(root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None) -> DataSet:
    """CIFAR-10 from torchvision's files or from an ``ImageFolder`` tree, whichever is in ``root``; no download.

    :param root: Holds ``cifar-10-batches-py`` (as torchvision unpacks it) or ``train`` and ``test`` folders of classes.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, 3, 32, 32)``.
    :raises FileNotFoundError: If neither is there, or a file is damaged, with what to put where.
    """
    root = check_split(root, seed, validation, limit)
    from torchvision.datasets import CIFAR10

    return _load_cifar(CIFAR10, "CIFAR-10", 10, root, seed, validation, limit)


def load_cifar100(root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None) -> DataSet:
    """CIFAR-100 with its 100 fine labels, like :func:`load_cifar10`.

    :param root: Holds ``cifar-100-python`` (as torchvision unpacks it) or ``train`` and ``test`` folders of classes.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, 3, 32, 32)``.
    :raises FileNotFoundError: If neither is there, or a file is damaged, with what to put where.
    """
    root = check_split(root, seed, validation, limit)
    from torchvision.datasets import CIFAR100

    return _load_cifar(CIFAR100, "CIFAR-100", 100, root, seed, validation, limit)


def _load_cifar(
    loader: Any, title: str, nb_classes: int, root: str | Path, seed: int, validation: float, limit: int | None
) -> DataSet:
    folder, name = Path(root), title.lower().replace("-", "")
    if (folder / "train").is_dir():
        return load_image_folder(folder, name, seed, validation, limit)
    put = (
        f"Put torchvision's folder {loader.base_folder} there (torchvision.datasets.{loader.__name__}"
        f"({str(folder)!r}, download=True), or {_CIFAR_PAGE}), or folders train/<class>/<image> and "
        "test/<class>/<image>."
    )
    if not (folder / loader.base_folder).is_dir():
        raise missing(title, folder, put)
    try:
        raw = [loader(str(folder), train=train) for train in (True, False)]
    except RuntimeError as error:  # a file that is missing or has another checksum
        raise missing(title, folder, put) from error
    train, test = (Images(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), part.targets) for part in raw)
    return parted(name, train, test, nb_classes, seed, validation, limit, raw[0].classes)


def load_svhn(root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None) -> DataSet:
    """SVHN's cropped digits from the two published files; the digit 0 is class 0.

    :param root: Holds ``train_32x32.mat`` and ``test_32x32.mat``.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, 3, 32, 32)``.
    :raises FileNotFoundError: If a file is missing or damaged, with what to put where.
    """
    root = check_split(root, seed, validation, limit)
    from torchvision.datasets import SVHN

    try:
        raw = [SVHN(str(root), split=part) for part in ("train", "test")]
    except RuntimeError as error:
        call = ", ".join(
            f"torchvision.datasets.SVHN({str(root)!r}, {part!r}, download=True)" for part in ("train", "test")
        )
        put = f"Put train_32x32.mat and test_32x32.mat there ({call}, or {_SVHN_PAGE})."
        raise missing("SVHN", Path(root), put) from error
    train, test = (Images(np.ascontiguousarray(part.data), part.labels) for part in raw)
    return parted("svhn", train, test, 10, seed, validation, limit)
