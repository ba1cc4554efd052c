"""Images and labels in numpy's ``.npz`` archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_lbgat.checks import check_path, check_text
from art_lbgat.data.images import Images
from art_lbgat.data.sets import DataSet, check_split, parted

_IMAGE_KEYS = ("image", "images", "x")
_LABEL_KEYS = ("label", "labels", "y")
# No images shrink like that: what does is made to fill the memory.
_LARGE, _MOST_SHRUNK = 1 << 30, 100


def load_npz(
    root: str | Path, name: str | None = None, seed: int = 0, validation: float = 0.1, limit: int | None = None
) -> DataSet:
    """A data set from one archive with the keys ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    :param root: The file. Images are uint8, ``(N, H, W, C)``, ``(N, C, H, W)`` or ``(N, H, W)``; labels class indices.
    :param name: Name of the data set; None for that of the file.
    :param seed: Seed of the validation split and of ``limit``.
    :param validation: Share of the training part that is held out.
    :param limit: Use only this many training images, the same number of each class, or all.
    :return: Images ``(n, C, H, W)``; there are as many classes as the largest training label says.
    :raises FileNotFoundError: If the file is not there, with what it must hold.
    :raises TypeError: If images are not uint8.
    :raises ValueError: A missing key, other shapes, a test label that no training image can have.
    """
    root = check_split(root, seed, validation, limit)
    if name is not None:
        check_text(name, "name")
    with _opened(root, "root", "x_train, y_train, x_test and y_test") as archive:
        train, test = (_images(archive, root, "root", (f"x_{part}",), (f"y_{part}",)) for part in ("train", "test"))
    if train.image_shape != test.image_shape:
        raise ValueError(f"root: x_train has images of shape {train.image_shape}, x_test of {test.image_shape}.")
    return parted(name or root.stem, train, test, int(train.y.max()) + 1, seed, validation, limit)


def read_npz_images(path: str | Path, name: str = "path") -> Images:
    """The images and labels of one archive, such as those that generative models were sampled into.

    :param path: The file. Its images are under ``image``, ``images`` or ``x``: uint8, ``(N, H, W, C)``,
        ``(N, C, H, W)`` or ``(N, H, W)``; its labels under ``label``, ``labels`` or ``y``. Nothing is unpickled.
    :param name: The name of the argument it came from, for errors.
    :return: The images, channels first.
    :raises FileNotFoundError: If the file is not there.
    :raises TypeError: If images are not uint8.
    :raises ValueError: A missing key, or other shapes.
    """
    with _opened(path, name, "image and label") as archive:
        return _images(archive, path, name, _IMAGE_KEYS, _LABEL_KEYS)


def _opened(path: str | Path, name: str, keys: str) -> Any:
    path = check_path(path, name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: expected an .npz archive with the keys {keys} (numpy.savez), but {path} does not exist."
        )
    try:
        archive = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy and zipfile raise many types for a damaged file
        raise ValueError(f"{name}: expected an .npz archive with the keys {keys}, but {path} is none.") from error
    if not hasattr(archive, "files"):
        raise ValueError(f"{name}: expected an .npz archive with the keys {keys}, but {path} is a single array.")
    return archive


def _images(
    archive: Any, path: str | Path, name: str, image_keys: tuple[str, ...], label_keys: tuple[str, ...]
) -> Images:
    x, y = (_entry(archive, path, name, keys) for keys in (image_keys, label_keys))
    try:
        return Images(_channels_first(x), y)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: in {path}, {error}") from error


def _entry(archive: Any, path: str | Path, name: str, keys: tuple[str, ...]) -> NDArray[Any]:
    for key in keys:
        if key in archive.files:
            try:
                _check_size(archive, key)
                entry: NDArray[Any] = archive[key]
            except Exception as error:  # an array of objects; damage, for which zipfile and zlib raise many types
                raise ValueError(f"{name}: expected an array of numbers under {key!r} of {path} ({error}).") from error
            if not isinstance(entry, np.ndarray):  # a file of the archive that is no array comes as bytes
                raise ValueError(f"{name}: expected an array of numbers under {key!r} of {path}, got a file.")
            return entry
    raise ValueError(f"{name}: expected the key {' or '.join(map(repr, keys))} in {path}, got {sorted(archive.files)}.")


def _check_size(archive: Any, key: str) -> None:
    for packed in archive.zip.infolist():
        most = max(_LARGE, _MOST_SHRUNK * packed.compress_size)
        if packed.filename in (key, f"{key}.npy") and packed.file_size > most:
            raise ValueError(f"{packed.compress_size:,} bytes that would fill {packed.file_size:,}")


def _channels_first(x: NDArray[Any]) -> NDArray[Any]:
    """Grey images get a channel; one or three channels at the end come first, where they are not first already."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise ValueError(f"x: expected images (N, H, W, C), (N, C, H, W) or (N, H, W), got shape {x.shape}.")
    if x.shape[1] in (1, 3):
        return x
    if x.shape[3] not in (1, 3):
        raise ValueError(f"x: expected 1 or 3 channels, at the front or at the end, got shape {x.shape}.")
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
