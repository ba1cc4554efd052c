"""Data sets that are trees of image files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from art_lbgat.checks import check_choice, check_count, check_name, check_path, check_share, check_text
from art_lbgat.data.images import Images
from art_lbgat.data.sets import DataSet, check_split, limited, missing, parted, split_indices

_TINY_FOLDER = "tiny-imagenet-200"
_TINY_ADDRESS = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_TINY_SIZE = 64
_SHOWN = 4  # broken files in an error
# Told by their content, whatever they are called; not those that Pillow gives to other programs (PostScript).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def load_image_folder(
    root: str | Path,
    name: str = "images",
    seed: int = 0,
    validation: float = 0.1,
    limit: int | None = None,
    size: int | None = None,
    test: float = 0.2,
) -> DataSet:
    """Images from folders of classes: ``root/train/<class>/*`` and ``root/test/<class>/*``, or just ``root/<class>/*``.

    Classes are numbered in the sorted order of their folders (torchvision's ``ImageFolder``), whose names are
    ``class_names``. A tree without ``train`` and ``test`` is split, the same share of each class; its test part is
    always the same, so that no choice made on validation data, with whatever seed, has seen a test image.

    :param root: The folder.
    :param name: Name of the data set.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :param size: Crop the middle square of each image and resize it to this; None where all have one size.
    :param test: Share of all images that is kept for testing, where ``root`` has no ``test``.
    :return: Images ``(n, 3, H, W)``.
    :raises FileNotFoundError: If a part is missing, with the layout that is expected.
    :raises ValueError: If the parts have different classes, there is one class, or images differ in size.
    """
    root = check_split(root, seed, validation, limit)
    check_text(name, "name")
    if size is not None:
        check_count(size, "size")
    check_share(test, "test")
    trained, tested, classes = _find_parts(Path(root), test)
    if len(classes) < 2:
        raise ValueError(f"root: expected at least two classes in {root}, got {classes}.")
    y = np.asarray([label for _, label in trained], dtype=np.int64)
    chosen = limited(y, limit, seed)
    train = Images(read_images([trained[i][0] for i in chosen], size, "root"), y[chosen])
    held = Images(read_images([path for path, _ in tested], size, "root"), [label for _, label in tested])
    return parted(name, train, held, len(classes), seed, validation, class_names=classes)


def _find_parts(root: Path, test: float) -> tuple[list[tuple[str, int]], list[tuple[str, int]], list[str]]:
    """Files with their class of the training and of the test part, and the names of the classes."""
    from torchvision.datasets import ImageFolder

    parts = [root / part for part in ("train", "test")]
    if any(part.is_dir() for part in parts):
        for part in parts:
            if not part.is_dir():
                raise FileNotFoundError(f"root: expected folders {part}/<class>/<image>, but {part} does not exist.")
        train, tested = (ImageFolder(str(part)) for part in parts)
        if train.classes != tested.classes:
            raise ValueError(f"root: train has the classes {train.classes}, test has {tested.classes}.")
        return train.samples, tested.samples, train.classes
    if not root.is_dir():
        raise FileNotFoundError(f"root: expected a folder of images, {root}/<class>/<image>, but {root} is none.")
    if not any(each.is_dir() for each in root.iterdir()):
        loose = sum(each.is_file() for each in root.iterdir())
        found = f"{loose} files without a folder of their class" if loose else "none"
        raise FileNotFoundError(
            f"root: expected folders {root}/<class>/<image>, or {root}/train/<class>/<image> and "
            f"{root}/test/<class>/<image>, but there are {found}."
        )
    whole = ImageFolder(str(root))
    first, second = split_indices(np.asarray(whole.targets, dtype=np.int64), test, seed=0, name="test")
    return [whole.samples[i] for i in first], [whole.samples[i] for i in second], whole.classes


def load_tiny_imagenet(
    root: str | Path, seed: int = 0, validation: float = 0.1, limit: int | None = None, size: int = _TINY_SIZE
) -> DataSet:
    """Tiny ImageNet in its published layout; its 10,000 labelled ``val`` images are the test part.

    Classes are numbered in the sorted order of their WordNet ids (the folders of ``train``). The published test images
    have no labels and are not read.

    :param root: Holds ``train/<wnid>/images/*.JPEG``, ``val/images`` and ``val/val_annotations.txt``; or the folder
        ``tiny-imagenet-200`` that does.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :param size: 64, or 32 as in the paper: bilinear with antialiasing (PIL).
    :return: Images ``(n, 3, size, size)``.
    :raises FileNotFoundError: If something is missing, with what to put where.
    :raises ValueError: Another ``size``; a line of the annotations that names no image and known class.
    """
    root = check_split(root, seed, validation, limit)
    check_choice(size, "size", (32, _TINY_SIZE))
    folder = Path(root) / _TINY_FOLDER
    folder = folder if folder.is_dir() else Path(root)
    annotations = folder / "val" / "val_annotations.txt"
    found = sorted((folder / "train").glob("*/images/*.JPEG"))
    if not found or not annotations.is_file():
        raise missing(
            "Tiny ImageNet",
            folder,
            f"Unpack {_TINY_ADDRESS} there: {_TINY_FOLDER}/train/<wnid>/images/*.JPEG, val/images/*.JPEG "
            "and val/val_annotations.txt in it.",
        )
    wnids = sorted({path.parts[-3] for path in found})
    index = {wnid: label for label, wnid in enumerate(wnids)}
    y = np.asarray([index[path.parts[-3]] for path in found], dtype=np.int64)
    chosen = limited(y, limit, seed)
    train = Images(read_images([found[i] for i in chosen], size, "root"), y[chosen])
    tested, labels = [], []
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), 1):
        file, wnid = [*line.split("\t"), "", ""][:2]
        if wnid not in index:
            raise ValueError(f"root: expected '<file>\\t<wnid>' in line {number} of {annotations}, got {line!r}.")
        tested.append(annotations.parent / "images" / check_name(file, f"root: file in line {number} of {annotations}"))
        labels.append(index[wnid])
    if not tested:
        raise ValueError(f"root: expected a line '<file>\\t<wnid>' for each image in {annotations}, got none.")
    return parted(
        "tiny-imagenet", train, Images(read_images(tested, size, "root"), labels), len(wnids), seed, validation
    )


def read_images(paths: Sequence[str | Path], size: int | None = None, name: str = "paths") -> NDArray[np.uint8]:
    """Decode image files as RGB, upright; what a classifier that was trained on such files is to be given, times 255.

    :param paths: The files, at least one.
    :param size: Resize the middle square to this, bilinear with antialiasing; None to leave them, where all have one
        size.
    :param name: The name of the argument that ``paths`` came from, for errors.
    :return: uint8, ``(N, 3, H, W)``.
    :raises FileNotFoundError: If a file is missing.
    :raises TypeError: If ``paths`` is no sequence of paths.
    :raises ValueError: If there is no file, images differ in size, or files are no images, with all of these.
    """
    check_text(name, "name")
    if isinstance(paths, (str, bytes, Path)) or not isinstance(paths, Sequence):
        raise TypeError(f"{name}: expected a sequence of paths, got {paths!r}.")
    if size is not None:
        check_count(size, "size")
    files = [check_path(path, name) for path in paths]
    if not files:
        raise ValueError(f"{name}: expected at least one image file, got none.")
    images: NDArray[np.uint8] | None = None
    broken: list[str] = []
    # In one thread: small images spend their time inside python's lock, and threads only wait for it.
    for place, path in enumerate(files):
        try:
            image = _decode(path, size, name)
        except ValueError as error:
            broken.append(str(error))
            continue
        if images is None:
            first, images = path, np.empty((len(files), *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"{name}: expected images of one size, or a size to bring them to (size=32; image_size in a recipe), "
                f"got {images.shape[2:]} in {first} and {image.shape[1:]} in {path}."
            )
        images[place] = image
    if broken or images is None:
        more = f" And {len(broken) - 1} more: {' '.join(broken[1:_SHOWN])}" if len(broken) > 1 else ""
        raise ValueError(f"{broken[0]}{more}")
    return images


def _upright(file: Image.Image) -> Image.Image:
    """The image as the camera was held; damaged notes of that are passed over, as every viewer does."""
    try:
        return ImageOps.exif_transpose(file)
    except (ValueError, TypeError, KeyError, struct.error, SyntaxError):
        return file


def _decode(path: Path, size: int | None, name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path, formats=_FORMATS) as file:
            image = _upright(file).convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: expected the image {path}, but it does not exist.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: expected an image in {path} ({error}).") from error
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)
