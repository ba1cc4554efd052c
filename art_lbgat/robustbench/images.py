"""The test images of RobustBench, by its own loaders, with one error for what is not there."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from art_lbgat.checks import check_choice, check_count
from art_lbgat.preserve import preserved_randomness
from art_lbgat.robustbench.cifar_file import read_batch
from art_lbgat.robustbench.entries import entries
from art_lbgat.robustbench.standard import N_EXAMPLES, NB_CLASSES, Dataset, ThreatModel
from art_lbgat.robustbench_import import import_robustbench

Preprocessing = str | Callable[[Any], Tensor] | None


class BenchmarkImages(NamedTuple):
    """Images to be judged, in the order in which RobustBench takes them.

    :param x: ``(N, 3, height, width)``, float32, in [0, 1].
    :param y: Index labels, ``(N,)``, int64.
    :param published: Whether they come from the files that were published; told by the checksum for CIFAR, taken on
        trust for ImageNet, of which there is none.
    """

    x: Tensor
    y: Tensor
    published: bool


def load_images(
    dataset: Dataset,
    threat_model: ThreatModel,
    n_examples: int | None,
    data_dir: str | Path,
    preprocessing: Preprocessing = None,
    model_name: str | None = None,
) -> BenchmarkImages:
    """The first ``n_examples`` test images.

    CIFAR files with another checksum than the published ones are read too, without running any code that may be in
    them, and are marked. Where there are no files, RobustBench's loader downloads them (CIFAR only).

    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: Decides the preprocessing of some ImageNet models.
    :param n_examples: How many; None for all (5,000 of ImageNet).
    :param data_dir: Holds ``cifar-10-batches-py``, ``cifar-100-python`` or (ImageNet) ``val``.
    :param preprocessing: For ImageNet: a name of RobustBench's ``PREPROCESSINGS`` or a callable from image to tensor.
    :param model_name: For ImageNet: a zoo name, whose preprocessing is taken where none is given.
    :return: The images.
    :raises FileNotFoundError: If they are not there and cannot be fetched, with what to put where.
    :raises ValueError: A damaged file, more than 5,000 images of ImageNet, no or an unknown preprocessing for it.
    """
    folder = Path(data_dir)
    if n_examples is not None:
        check_count(n_examples, "n_examples")
    if dataset == "imagenet":
        return _load_imagenet(threat_model, n_examples, folder, preprocessing, model_name)
    if preprocessing is not None:
        raise ValueError(f"preprocessing: expected None, only ImageNet images are preprocessed, got {preprocessing!r}.")
    return _load_cifar(dataset, n_examples, folder)


@contextmanager
def missing_data(title: str, put: str) -> Iterator[None]:
    """Whatever a loader raises where files are missing or the network is, as one error that says what to put where.

    :param title: Title of the data.
    :param put: What to put, and where.
    """
    try:
        with _safe_extraction():
            yield
    except Exception as error:  # urllib, requests, torchvision and RobustBench each raise types of their own
        reason = f"{type(error).__name__}: {error}"
        raise FileNotFoundError(
            f"data_dir: no {title}, and it could not be downloaded ({reason}). Put {put}."
        ) from error


@contextmanager
def _safe_extraction() -> Iterator[None]:
    """What a library unpacks of a download stays in its folder, as it does by itself from Python 3.14 on."""
    safe, archive = getattr(tarfile, "data_filter", None), tarfile.TarFile
    if safe is None or archive.extraction_filter is not None:  # a Python without it, or somebody's own
        yield
        return
    archive.extraction_filter = staticmethod(safe)
    try:
        yield
    finally:
        archive.extraction_filter = None


def _load_cifar(dataset: Dataset, n_examples: int | None, folder: Path) -> BenchmarkImages:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    published = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[dataset]
    base = folder / published.base_folder
    name, checksum = published.test_list[0]
    files = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    complete = all(check_integrity(str(base / file), md5) for file, md5 in files)
    if (base / name).is_file() and not complete:  # the loader would replace the files by a download
        x, y = read_batch(base / name)
        same = check_integrity(str(base / name), checksum)
        return _first(x, y, n_examples, published=same)
    title = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[dataset]
    package = import_robustbench()
    kind = package.model_zoo.enums.BenchmarkDataset(dataset)
    with missing_data(f"{title} in {folder}", f"torchvision's folder {published.base_folder} into {folder}"):
        x, y = package.data.load_clean_dataset(kind, None, str(folder), package.data.PREPROCESSINGS[None])
    return _first(x, y, n_examples, published=True)


def _first(x: Tensor, y: Tensor, n_examples: int | None, published: bool) -> BenchmarkImages:
    if n_examples is not None and n_examples > len(x):
        raise ValueError(f"n_examples: expected at most {len(x)}, as many as there are, got {n_examples}.")
    return BenchmarkImages(x[:n_examples], y[:n_examples], published)


def _load_imagenet(
    threat_model: ThreatModel,
    n_examples: int | None,
    folder: Path,
    preprocessing: Preprocessing,
    model_name: str | None,
) -> BenchmarkImages:
    package = import_robustbench()
    kind = package.model_zoo.enums.BenchmarkDataset("imagenet")
    threat = package.model_zoo.enums.ThreatModel(threat_model)
    most = N_EXAMPLES["imagenet"]
    n_examples = most if n_examples is None else n_examples
    if n_examples > most:
        raise ValueError(f"n_examples: expected at most {most} for ImageNet, got {n_examples}.")
    known = [name for name in package.data.PREPROCESSINGS if name is not None]
    if isinstance(preprocessing, str):
        check_choice(preprocessing, "preprocessing", known)
    elif preprocessing is None and not _is_zoo_model(threat_model, model_name):
        raise ValueError(
            f"preprocessing: expected one of {known} or a callable for an ImageNet model that is not of the zoo, got "
            f"None with model_name={model_name!r}."
        )
    if not (folder / "val").is_dir():
        raise FileNotFoundError(
            f"data_dir: no ImageNet in {folder}. Put the validation images into {folder / 'val'}, one folder per class "
            "(n01440764, ...); they cannot be downloaded for you."
        )
    classes = sum(path.is_dir() for path in (folder / "val").iterdir())
    if classes != NB_CLASSES["imagenet"]:  # a class is numbered by its place among the folders
        raise FileNotFoundError(
            f"data_dir: expected the 1000 class folders of ImageNet in {folder / 'val'}, got {classes}."
        )
    with preserved_randomness():
        chosen = package.data.get_preprocessing(kind, threat, model_name, preprocessing)
        with missing_data(f"ImageNet in {folder}", f"all validation images into {folder / 'val'}"):
            x, y = package.data.load_clean_dataset(kind, n_examples, str(folder), chosen)
    return BenchmarkImages(x, y, published=True)


def _is_zoo_model(threat_model: ThreatModel, model_name: str | None) -> bool:
    """Whether RobustBench's zoo has an ImageNet model of that name."""
    zoo = threat_model.removesuffix("_3d")
    return any(entry.name == model_name and entry.threat_model == zoo for entry in entries("imagenet"))
