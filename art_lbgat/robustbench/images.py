"""The test images of RobustBench, by the loaders that it uses, with one error for what is not there."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from art_lbgat.checks import check_choice, check_count
from art_lbgat.data import read_images
from art_lbgat.data.folders import find_files
from art_lbgat.preserve import preserved_randomness
from art_lbgat.robustbench.result import N_EXAMPLES, NB_CLASSES
from art_lbgat.robustbench.zoo import board_keys, entries
from art_lbgat.robustbench_import import import_robustbench

Preprocessing = str | Callable[[Any], Tensor] | None
CorruptedImages = Callable[[int, int, str], tuple[Tensor, Tensor]]
"""From the number of images, the severity and the kind to images and labels."""
Images = tuple[Tensor, Tensor, bool]
"""Images in [0, 1], float32, index labels, and whether they are the published files (ImageNet is trusted)."""


def load_images(
    dataset: str,
    threat_model: str,
    n_examples: int | None,
    data_dir: str | Path,
    preprocessing: Preprocessing = None,
    model_name: str | None = None,
) -> Images:
    """The first ``n_examples`` test images, or all; arguments as for :func:`benchmark`."""
    folder = Path(data_dir)
    if n_examples is not None:
        check_count(n_examples, "n_examples")
    if dataset == "imagenet":
        return _load_imagenet(threat_model, n_examples, folder, preprocessing, model_name)
    if preprocessing is not None:
        raise ValueError(f"preprocessing: expected None, only ImageNet images are preprocessed, got {preprocessing!r}.")
    x, y, published = _load_cifar(dataset, folder)
    if n_examples is not None and n_examples > len(x):
        raise ValueError(f"n_examples: expected at most {len(x)}, as many as there are, got {n_examples}.")
    return x[:n_examples], y[:n_examples], published


def corrupted_images(
    dataset: str, threat_model: str, model_name: str | None, data_dir: Path
) -> tuple[CorruptedImages, Path]:
    """RobustBench's loader of corrupted images, and the folder that it reads or downloads to."""
    data = import_robustbench().data
    kind, threat = board_keys(dataset, threat_model)
    loader, folder = data.CORRUPTION_DATASET_LOADERS[kind][threat], data_dir / data.CORRUPTIONS_DIR_NAMES[kind][threat]
    # Corrupted images are cropped already, so always the same; the loaders of CIFAR take no such argument.
    cropped = {"prepr": data.get_preprocessing(kind, threat, model_name, "Res224")} if dataset == "imagenet" else {}

    def load(n_examples: int, severity: int, corruption: str) -> tuple[Tensor, Tensor]:
        put = f"the published folder {folder.name} into {data_dir}"
        with preserved_randomness(), missing_data(f"{corruption} in {folder}", put):
            x, y = loader(n_examples, severity, str(data_dir), corruptions=[corruption], **cropped)
        return x, y

    return load, folder


@contextmanager
def missing_data(title: str, put: str) -> Iterator[None]:
    """Whatever a loader raises where files or the network are missing, as one error that says what to put where.

    What it unpacks of a download stays in its folder, as it does by itself from Python 3.14 on.
    """
    filtering = getattr(tarfile, "data_filter", None) is not None and tarfile.TarFile.extraction_filter is None
    if filtering:  # this Python has the filter, and nobody has set one
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    except Exception as error:  # urllib, requests, torchvision and RobustBench each raise types of their own
        reason = f"{type(error).__name__}: {error}"
        message = f"data_dir: no {title}, and it could not be downloaded ({reason}). Put {put}."
        raise FileNotFoundError(message) from error
    finally:
        if filtering:
            tarfile.TarFile.extraction_filter = None


def _load_cifar(dataset: str, folder: Path) -> Images:
    from torchvision import datasets

    if (folder / "test").is_dir():
        try:
            (files,) = find_files(folder / "test").values()
        except (ValueError, OSError) as error:
            raise type(error)(f"data_dir{str(error).removeprefix('root')}") from error
        names = sorted({each.label for each in files})
        order = np.random.default_rng(0).permutation(len(files))  # the first ones are a sample of all classes
        images = read_images([files[i].path for i in order], name="data_dir")
        labels = torch.tensor([names.index(files[i].label) for i in order])
        return torch.from_numpy(images).float().div(255), labels, False
    cifar, title = {"cifar10": (datasets.CIFAR10, "CIFAR-10"), "cifar100": (datasets.CIFAR100, "CIFAR-100")}[dataset]
    test_only = type(title, (cifar,), {"train_list": []})
    path = folder / cifar.base_folder / cifar.test_list[0][0]
    if not path.is_file():
        with missing_data(f"{title} in {folder}", f"torchvision's folder {cifar.base_folder} into {folder}"):
            test_only(str(folder), train=False, download=True)
    try:  # torchvision unpickles a file only if its checksum is the published one
        found = test_only(str(folder), train=False)
    except RuntimeError as error:
        raise ValueError(
            f"data_dir: {path} or {path.with_name(cifar.meta['filename'])} is missing or damaged, or not the published "
            f"file ({error}). Delete the folder to have it downloaded, or put images of your own into "
            f"{folder / 'test'}/<class>/<image>."
        ) from error
    x = torch.from_numpy(found.data.transpose(0, 3, 1, 2).copy())
    return x.float().div(255), torch.tensor(found.targets), True


def _load_imagenet(
    threat_model: str, n_examples: int | None, folder: Path, preprocessing: Preprocessing, model_name: str | None
) -> Images:
    data, most, images = import_robustbench().data, N_EXAMPLES["imagenet"], folder / "val"
    if n_examples is not None and n_examples > most:
        raise ValueError(f"n_examples: expected at most {most} for ImageNet, got {n_examples}.")
    known = [name for name in data.PREPROCESSINGS if name is not None]
    if isinstance(preprocessing, str):
        check_choice(preprocessing, "preprocessing", known)
    elif preprocessing is None and model_name not in {entry.name for entry in entries("imagenet", threat_model)}:
        raise ValueError(
            f"preprocessing: expected one of {known} or a callable for an ImageNet model that is not of the zoo, got "
            f"None with model_name={model_name!r}."
        )
    classes = sum(path.is_dir() for path in images.iterdir()) if images.is_dir() else 0
    if classes != NB_CLASSES["imagenet"]:  # a class is numbered by its place among the folders
        raise FileNotFoundError(
            f"data_dir: no ImageNet in {folder}. Put the validation images into {images}, in the 1000 class folders of "
            f"ImageNet (n01440764, ...), got {classes} folders; they cannot be downloaded for you."
        )
    kind, threat = board_keys("imagenet", threat_model)
    with preserved_randomness():
        chosen = data.get_preprocessing(kind, threat, model_name, preprocessing)
        with missing_data(f"ImageNet in {folder}", f"all validation images into {images}"):
            x, y = data.load_clean_dataset(kind, n_examples or most, str(folder), chosen)
    return x, y, True
