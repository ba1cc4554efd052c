"""Data sets in three disjoint parts, seeded stratified splits, and the loader of each name; nothing is downloaded."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_lbgat.checks import (
    as_array,
    check_choice,
    check_count,
    check_indices,
    check_name,
    check_optional,
    check_path,
    check_seed,
    check_share,
    check_text,
    check_utf8,
)
from art_lbgat.data.folders import divided, find_files, lowest, without_copies
from art_lbgat.data.images import Images, channels_first, read_images, read_npz

logger = logging.getLogger(__name__)
Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]
Indices = NDArray[np.int64]
LARGEST_SEED = 2**32 - 1  # of scikit-learn


@dataclass(frozen=True)
class DataSet:
    """Images as bytes, channels first, with index labels, in three disjoint parts.

    ``train``, ``validation`` and ``test`` make new arrays ``(x, y)``, float32 in [0, 1] and int64, at each access.

    :param name: Name of the data set.
    :param train_images: What to train on.
    :param validation_images: Held out of the training data, for every choice that is made.
    :param test_images: For the numbers that are reported alone.
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

    :param y: Index labels, ``(n,)``; a class with a single sample is left in the first part.
    :param fraction: Share of the second part, in (0, 1).
    :param seed: Same seed, same split; at most 2**32 - 1.
    :param name: The name of the argument that ``fraction`` came from, for errors.
    :return: The indices of the first and of the second part, ascending.
    :raises ValueError: Also if ``fraction`` is too small or too large for each class to be in both.
    """
    from sklearn.model_selection import train_test_split

    check_share(fraction, check_text(name, "name"))
    check_seed(seed, maximum=LARGEST_SEED)
    y = check_indices(y)
    classes, counts = np.unique(y, return_counts=True)
    several = classes[counts > 1]
    candidates = np.flatnonzero(np.isin(y, several))
    size = int(np.ceil(fraction * len(candidates)))
    rest = len(candidates) - size
    if len(several) == 0 or min(size, rest) < len(several):
        got = f"{fraction:g} of {len(candidates)} samples leaves {size} for the second part and {rest} for the first"
        expected = f"at least one of each of the {len(several)} classes that have two samples or more in both"
        raise ValueError(f"{name}: {got}; expected {expected}.")
    first, second = train_test_split(candidates, test_size=fraction, random_state=seed, stratify=y[candidates])
    single = np.setdiff1d(np.arange(len(y)), candidates, assume_unique=True)
    return np.sort(np.concatenate([first, single])), np.sort(second)


def split(x: NDArray[Any], y: NDArray[Any], fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """The parts of samples ``x`` ``(n, ...)`` as arrays ``(x, y)``; arguments and errors: see :func:`split_indices`."""
    first, second = split_indices(y, fraction, seed)
    x, y = as_array(x, "x"), as_array(y, "y")
    if x.ndim == 0 or len(x) != len(y):
        raise ValueError(f"x: expected {len(y)} samples, one for each label, got shape {x.shape}.")
    return (x[first], y[first]), (x[second], y[second])


def balanced_order(y: NDArray[np.int64], seed: int = 0) -> Indices:
    """An order in which every beginning has the same number of each class, as near as the labels allow.

    Data sets are often sorted by class, so that their first images are no sample of them.

    :param y: Index labels, ``(n,)``.
    :param seed: Seed of the order within each class.
    :return: All indices, each once.
    """
    y = check_indices(y)
    shuffled = np.random.default_rng(check_seed(seed)).permutation(len(y))
    rank = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        members = shuffled[y[shuffled] == label]
        rank[members] = np.arange(len(members))
    return np.lexsort((y, rank))


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
    :param limit: Use only this many training images, the same number of each class; None for all.
    :param options: What else the loader takes, such as ``size=32`` for ``"tiny-imagenet"``.
    :return: The data set.
    :raises FileNotFoundError: If the data are not there, with what to download and where to put it.
    """
    loader = LOADERS[check_choice(name, "name", LOADERS)]
    taken = set(inspect.signature(loader).parameters)
    for option in options:
        check_choice(option, "options", sorted(taken - {"root", "seed", "validation", "limit"}))
    if "root" not in taken and root is not None:
        raise ValueError(f"root: expected None, since {name} come with scikit-learn, got {root!r}.")
    if "root" in taken and root is None:
        places = {"folder": "your folder of images, with a folder for each class", "npz": "the file"}
        place = places.get(name, f"the path that holds {name}")
        raise ValueError(f"root: expected {place} (--root on the command line), got None.")
    if root is not None:
        check_utf8(check_path(root, "root").absolute(), "root")
        options["root"] = root
    if validation is not None:
        options["validation"] = validation
    return loader(seed=seed, limit=limit, **options)


@dataclass(frozen=True)
class _Split:
    """How the images to train on are limited and split; checked before any file is looked for."""

    seed: int
    validation: float
    limit: int | None

    def __post_init__(self) -> None:
        check_seed(self.seed, maximum=LARGEST_SEED)
        check_share(self.validation, "validation")
        check_optional(check_count, self.limit, "limit")

    def limited(self, y: NDArray[np.int64]) -> Indices:
        """Indices of at most ``limit`` samples, the same number of each class (at least one), ascending."""
        if self.limit is None or self.limit >= len(y):
            return np.arange(len(y))
        per_class = max(1, self.limit // len(np.unique(y)))
        generator = np.random.default_rng(self.seed)
        chosen = [generator.permutation(np.flatnonzero(y == label))[:per_class] for label in np.unique(y)]
        return np.sort(np.concatenate(chosen))

    def data_set(
        self, name: str, train: Images, test: Images, nb_classes: int, class_names: Sequence[str] = ()
    ) -> DataSet:
        """The data set of a training part, of which some is held out, and a test part."""
        for part, images in (("training", train), ("test", test)):
            if images.y.max() >= nb_classes:
                expected = f"class indices in [0, {nb_classes - 1}] in the {part} part of {name}"
                raise ValueError(f"y: expected {expected}, got {images.y.max()}.")
        if self.limit is not None:
            train = train.subset(self.limited(train.y))
        try:
            first, second = split_indices(train.y, self.validation, self.seed, "validation")
        except ValueError as error:
            if self.limit is None:
                raise
            raise ValueError(f"limit: {self.limit} training images are too few. {error}") from error
        return DataSet(name, train.subset(first), train.subset(second), test, nb_classes, tuple(class_names))


def load_digits(seed: int = 0, validation: float = 0.125, test: float = 1 / 3, limit: int | None = None) -> DataSet:
    """Scikit-learn's 1,797 real 8x8 images of handwritten digits; other arguments and errors: see :func:`load_data`.

    :param test: Share of all images that is kept for testing; whatever the seed, the same images.
    :return: Images ``(n, 1, 8, 8)`` of values 0 to 16 (``scale`` 16).
    """
    split, _ = _Split(seed, validation, limit), check_share(test, "test")
    from sklearn.datasets import load_digits as load

    bunch = load()
    images = Images(bunch.images[:, None].astype(np.uint8), bunch.target, scale=16.0)
    rest, tested = split_indices(images.y, test, seed=0, name="test")
    return split.data_set("digits", images.subset(rest), images.subset(tested), 10)


def load_cifar10(root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None) -> DataSet:
    """CIFAR-10, images ``(n, 3, 32, 32)``; other arguments and errors: see :func:`load_data`.

    :param root: Holds ``cifar-10-batches-py`` (as torchvision unpacks it) or ``train`` and ``test`` folders of classes.
    """
    return _load_from_torchvision("CIFAR-10", 10, root, seed, validation, limit)


def load_cifar100(root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None) -> DataSet:
    """CIFAR-100 with its 100 fine labels, from ``cifar-100-python`` in ``root``, otherwise see :func:`load_cifar10`."""
    return _load_from_torchvision("CIFAR-100", 100, root, seed, validation, limit)


def load_svhn(root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None) -> DataSet:
    """SVHN's cropped digits, images ``(n, 3, 32, 32)``; other arguments and errors: see :func:`load_data`.

    :param root: Holds ``train_32x32.mat`` and ``test_32x32.mat``.
    """
    return _load_from_torchvision("SVHN", 10, root, seed, validation, limit)


def _load_from_torchvision(
    title: str, nb_classes: int, root: str | Path, seed: int, validation: float, limit: int | None
) -> DataSet:
    from torchvision import datasets

    split, folder, name = _Split(seed, validation, limit), check_path(root, "root"), title.lower().replace("-", "")
    loader: Any = getattr(datasets, name.upper())
    call = f"torchvision.datasets.{loader.__name__}({str(folder)!r}, "
    parts: tuple[Any, Any] = (True, False)
    if name == "svhn":
        parts, labels, put = ("train", "test"), "labels", "Put train_32x32.mat and test_32x32.mat there "
        calls = f"{call}'train', download=True), {call}'test', download=True)"
        put += f"({calls}, or http://ufldl.stanford.edu/housenumbers/)."
    elif (folder / "train").is_dir():
        return load_image_folder(folder, name, seed, validation, limit)
    else:
        labels, put = "targets", f"Put torchvision's folder {loader.base_folder} there ({call}download=True), or "
        put += (
            "https://www.cs.toronto.edu/~kriz/cifar.html), or folders train/<class>/<image> and test/<class>/<image>."
        )
    try:
        raw = [loader(str(folder), part) for part in parts]
    except RuntimeError as error:  # a file that is missing or has another checksum
        raise _missing(title, folder, put) from error
    train, test = (Images(channels_first(np.ascontiguousarray(part.data)), getattr(part, labels)) for part in raw)
    return split.data_set(name, train, test, nb_classes, getattr(raw[0], "classes", ()))


def load_tiny_imagenet(
    root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None, size: int = 64
) -> DataSet:
    """Tiny ImageNet, classes in the order of their WordNet ids; other arguments and errors: see :func:`load_data`.

    The 10,000 labelled ``val`` images are the test part, since the published test images have no labels.

    :param root: Holds ``train`` and ``val`` as published; or the folder ``tiny-imagenet-200`` that does.
    :param size: 64, or 32 as in the paper: bilinear with antialiasing (PIL).
    :return: Images ``(n, 3, size, size)``.
    """
    from torchvision.datasets import ImageFolder

    split, folder = _Split(seed, validation, limit), check_path(root, "root")
    check_choice(size, "size", (32, 64))
    if (folder / "tiny-imagenet-200").is_dir():
        folder /= "tiny-imagenet-200"
    annotations = folder / "val" / "val_annotations.txt"
    try:
        train, lines = ImageFolder(str(folder / "train")), annotations.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        layout = "train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt in it"
        put = f"Unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip there: tiny-imagenet-200/{layout}."
        raise _missing("Tiny ImageNet", folder, put) from error
    tested = []
    for number, line in enumerate(lines, 1):
        file, wnid = [*line.split("\t"), "", ""][:2]
        if wnid not in train.class_to_idx:
            raise ValueError(f"root: expected '<file>\\t<wnid>' in line {number} of {annotations}, got {line!r}.")
        check_name(file, f"root: file in line {number} of {annotations}")
        tested.append((annotations.parent / "images" / file, train.class_to_idx[wnid]))
    if not tested:
        raise ValueError(f"root: expected a line '<file>\\t<wnid>' for each image in {annotations}, got none.")
    chosen = [train.samples[i] for i in split.limited(np.array(train.targets))]
    return split.data_set("tiny-imagenet", _read(chosen, size), _read(tested, size), len(train.classes))


def load_image_folder(
    root: str | Path,
    name: str = "images",
    seed: int = 0,
    validation: float = 0.1,
    limit: int | None = None,
    size: int | None = None,
    test: float = 0.2,
) -> DataSet:
    """Images ``(n, 3, H, W)`` from folders of classes, in their sorted order; see :func:`load_data` for the rest.

    Which part a file is in follows from its content: no file changes it when others come, and copies share one.

    :param root: Holds ``train/<class>/*`` and ``test/<class>/*`` (and ``val``), or just ``<class>/*``.
    :param name: Name of the data set.
    :param validation: About this share of each class, at least one image, is held out where ``root`` has no ``val``.
    :param size: Crop the middle square of each image and resize it to this; None where all have one size.
    :param test: The same for testing, where ``root`` has no ``test``; whatever the seed, the same images.
    """
    _Split(seed, validation, limit)
    check_text(name, "name")
    check_optional(check_count, size, "size")
    check_share(test, "test")
    folder = check_path(root, "root")
    found = find_files(folder)
    names = {part: sorted({each.label for each in files}) for part, files in found.items()}
    classes = next(iter(names.values()))
    for part, other in names.items():
        if other != classes:
            raise ValueError(f"root: {next(iter(names))} has the classes {classes}, {part} has {other}.")
    if len(classes) < 2:
        raise ValueError(f"root: expected at least two classes in {folder}, got {classes}.")
    if "whole" in found:
        found["train"], found["test"] = divided(found.pop("whole"), test, "test", 3)
    elif "test" not in found:
        found["test"] = found.pop("validation")
        logger.warning("root: there is no test folder in %s; its validation folder is the test part.", folder)
    train = without_copies(found["train"], found["test"])
    limited = limit is not None and limit < len(train)
    if "validation" in found:
        held = without_copies(found["validation"], found["test"])
        train = without_copies(train, held)
    else:
        train, held = divided(train, validation, f"validation {seed}", 2)
    if limit is not None and limited:
        few = 0 if "validation" in found else max(1, round(validation * limit / len(classes)))
        if limit // len(classes) <= few:
            raise ValueError(f"limit: {limit} images of {len(classes)} classes are too few to train and to validate.")
        train = lowest(train, f"limit {seed}", dict.fromkeys(classes, limit // len(classes) - few))
        held = lowest(held, f"limit {seed}", dict.fromkeys(classes, few or len(held)))
    parts = ([(each.path, classes.index(each.label)) for each in part] for part in (train, held, found["test"]))
    train_images, validation_images, test_images = (_read(part, size) for part in parts)
    return DataSet(name, train_images, validation_images, test_images, len(classes), tuple(classes))


def _read(files: Sequence[tuple[str | Path, int]], size: int | None) -> Images:
    """Image files with their class."""
    return Images(read_images([path for path, _ in files], size, "root"), [label for _, label in files])


def load_npz(
    root: str | Path, name: str | None = None, seed: int = 0, validation: float = 0.1, limit: int | None = None
) -> DataSet:
    """``x_train``, ``y_train``, ``x_test``, ``y_test`` of a file; other arguments and errors: see :func:`load_data`.

    :param root: The file. Images are uint8, ``(N, H, W, C)``, ``(N, C, H, W)`` or ``(N, H, W)``; labels whole numbers.
    :param name: Name of the data set; None for that of the file.
    :return: Images ``(n, C, H, W)``; each training label is a class, named by its number if they are not 0, 1, 2, ...
    """
    split, path = _Split(seed, validation, limit), check_path(root, "root")
    check_optional(check_text, name, "name")
    keys = [(("x_train",), ("y_train",)), (("x_test",), ("y_test",))]
    train, test = read_npz(path, "root", "x_train, y_train, x_test and y_test", keys)
    if train.image_shape != test.image_shape:
        raise ValueError(f"root: x_train has images of shape {train.image_shape}, x_test of {test.image_shape}.")
    labels, numbers = np.unique(train.y, return_inverse=True)
    others = np.setdiff1d(test.y, labels)
    if len(labels) < 2 or others.size:
        got = f"{others[:5].tolist()} in y_test alone" if others.size else f"{labels.tolist()}"
        raise ValueError(f"root: expected two labels or more in y_train, no others in y_test, got {got} in {path}.")
    names = () if labels[-1] == len(labels) - 1 else tuple(map(str, labels))
    train, test = Images(train.x, numbers), Images(test.x, np.searchsorted(labels, test.y))
    return split.data_set(name or path.stem, train, test, len(labels), names)


def _missing(title: str, folder: Path, put: str) -> FileNotFoundError:
    return FileNotFoundError(f"root: no {title} in {folder}, or a damaged one. {put} Nothing is downloaded for you.")


LOADERS: dict[str, Callable[..., DataSet]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "svhn": load_svhn,
    "tiny-imagenet": load_tiny_imagenet,
    "folder": load_image_folder,
    "npz": load_npz,
}
