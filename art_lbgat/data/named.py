"""Data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from art_lbgat.checks import check_choice
from art_lbgat.data.archives import load_npz
from art_lbgat.data.folders import load_image_folder, load_tiny_imagenet
from art_lbgat.data.published import load_cifar10, load_cifar100, load_digits, load_svhn
from art_lbgat.data.sets import DataSet

LOADERS: dict[str, Callable[..., DataSet]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "svhn": load_svhn,
    "tiny-imagenet": load_tiny_imagenet,
    "folder": load_image_folder,
    "npz": load_npz,
}
"""The loader of each name."""
_ROOTS = {"folder": "your folder of images, with a folder for each class", "npz": "the file"}


def load_data(
    name: str,
    root: str | Path | None = None,
    seed: int = 0,
    validation: float | None = None,
    limit: int | None = None,
    **options: Any,
) -> DataSet:
    """A data set by name, from files that are there already; nothing is downloaded.

    :param name: ``"digits"``, ``"cifar10"``, ``"cifar100"``, ``"svhn"``, ``"tiny-imagenet"``, ``"folder"`` (an
        ``ImageFolder`` tree) or ``"npz"``.
    :param root: The folder (for ``"npz"`` the file) that holds it; None for ``"digits"``, which come with scikit-learn.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out; None for the loader's default (0.1; 1/8 for
        ``"digits"``).
    :param limit: Use only this many training images, the same number of each class, or all.
    :param options: What else the loader takes, such as ``size=32`` for ``"tiny-imagenet"``.
    :return: The data set.
    :raises FileNotFoundError: If the data are not there, with what to download and where to put it.
    :raises ValueError: An unknown name or option, with the nearest one; ``root`` missing, or given for ``"digits"``.
    """
    loader = LOADERS[check_choice(name, "name", LOADERS)]
    taken = set(inspect.signature(loader).parameters)
    for option in options:
        check_choice(option, "options", sorted(taken - {"root", "seed", "validation", "limit"}))
    if "root" not in taken:
        if root is not None:
            raise ValueError(f"root: expected None, since {name} come with scikit-learn, got {root!r}.")
    elif root is None:
        raise ValueError(
            f"root: expected {_ROOTS.get(name, f'the path that holds {name}')} (--root on the command line), got None."
        )
    else:
        options["root"] = root
    if validation is not None:
        options["validation"] = validation
    return loader(seed=seed, limit=limit, **options)
