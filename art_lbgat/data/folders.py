"""Data sets that are trees of image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from art_lbgat.checks import check_choice, check_name, check_text
from art_lbgat.data.images import Images
from art_lbgat.data.sets import DataSet, check_split, limited, missing, parted

_TINY_FOLDER = "tiny-imagenet-200"
_TINY_ADDRESS = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_TINY_SIZE = 64
# Told by their content, whatever they are called; not those that Pillow gives to other programs (PostScript).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def load_image_folder(
    root: str | Path, name: str = "images", seed: int = 0, validation: float = 0.1, limit: int | None = None
) -> DataSet:
    """Images from a tree ``root/train/<class>/*`` and ``root/test/<class>/*`` (torchvision's ``ImageFolder``).

    :param root: The folder that holds ``train`` and ``test``; all images of one size.
    :param name: Name of the data set.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, 3, H, W)``.
    :raises FileNotFoundError: If a part is missing, with the layout that is expected.
    :raises ValueError: If the parts have different classes, or images differ in size.
    """
    root = check_split(root, seed, validation, limit)
    check_text(name, "name")
    from torchvision.datasets import ImageFolder

    parts = {}
    for part in ("train", "test"):
        folder = Path(root) / part
        if not folder.is_dir():
            raise FileNotFoundError(f"root: expected folders {folder}/<class>/<image>, but {folder} does not exist.")
        parts[part] = ImageFolder(str(folder))
    if parts["train"].classes != parts["test"].classes:
        raise ValueError(f"root: train has the classes {parts['train'].classes}, test has {parts['test'].classes}.")
    y = np.asarray(parts["train"].targets, dtype=np.int64)
    chosen = limited(y, limit, seed)
    train = Images(read_images([parts["train"].samples[i][0] for i in chosen]), y[chosen])
    test = Images(read_images([path for path, _ in parts["test"].samples]), np.asarray(parts["test"].targets))
    return parted(name, train, test, len(parts["train"].classes), seed, validation)


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
    train = Images(read_images([found[i] for i in chosen], size), y[chosen])
    tested, labels = [], []
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), 1):
        file, wnid = [*line.split("\t"), "", ""][:2]
        if wnid not in index:
            raise ValueError(f"root: expected '<file>\\t<wnid>' in line {number} of {annotations}, got {line!r}.")
        tested.append(annotations.parent / "images" / check_name(file, f"root: file in line {number} of {annotations}"))
        labels.append(index[wnid])
    if not tested:
        raise ValueError(f"root: expected a line '<file>\\t<wnid>' for each image in {annotations}, got none.")
    return parted("tiny-imagenet", train, Images(read_images(tested, size), labels), len(wnids), seed, validation)


def read_images(paths: Sequence[str | Path], size: int | None = None) -> NDArray[np.uint8]:
    """Decode image files as RGB.

    :param paths: The files, at least one.
    :param size: Resize to this square, bilinear with antialiasing; None to leave them, where all have one size.
    :return: uint8, ``(N, 3, H, W)``.
    :raises FileNotFoundError: If a file is missing.
    :raises ValueError: If images differ in size, or a file is no image.
    """
    first = _decode(paths[0], size)
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)
    # In one thread: small images spend their time inside python's lock, and threads only wait for it.
    for place, path in enumerate(paths):
        image = _decode(path, size)
        if image.shape != first.shape:
            raise ValueError(
                f"root: expected images of one size, got {first.shape[1:]} in {paths[0]} and {image.shape[1:]} in "
                f"{path}."
            )
        images[place] = image
    return images


def _decode(path: str | Path, size: int | None) -> NDArray[np.uint8]:
    try:
        with Image.open(path, formats=_FORMATS) as file:
            image = file.convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"root: expected the image {path}, but it does not exist.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"root: expected an image in {path} ({error}).") from error
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)
