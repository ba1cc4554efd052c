"""Images held as bytes, how they are read from image files and numpy's archives, and extra ones to mix in."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from art_lbgat.checks import as_array, check_count, check_number, check_optional, check_path, check_share, check_text

Image.init()
# By their content, whatever they are called; not those that Pillow gives to other programs (PostScript), nor those that
# have no mark in their first bytes (TGA). An old Pillow lacks some.
_KINDS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "TIFF", "WEBP")
_FORMATS = tuple(kind for kind in _KINDS if kind in Image.OPEN)
# No larger array of images shrinks like that: what does is made to fill the memory.
SMALL_ARRAY, _MOST_SHRUNK = 1 << 30, 100


class Images(Dataset[tuple[Tensor, int]]):
    """Images of one size as bytes, a quarter of float32's memory; a torch ``Dataset`` of ``(x / scale, y)``.

    :param x: Images, uint8, ``(N, C, H, W)``, values in [0, scale]; not copied.
    :param y: Class indices, ``(N,)`` or ``(N, 1)``, any integer dtype; kept as int64.
    :param scale: The value that means 1.0: 255, or 16 for scikit-learn's digits.
    """

    def __init__(self, x: Any, y: Any, scale: float = 255.0) -> None:
        images, labels = as_array(x, "x"), as_array(y, "y")
        if images.dtype != np.uint8:
            raise TypeError(f"x: expected images as uint8 in [0, {scale:g}], got dtype {images.dtype}.")
        if images.ndim != 4 or images.size == 0:
            raise ValueError(f"x: expected images (N, C, H, W), at least one, got shape {images.shape}.")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.dtype.kind not in "iu":
            raise TypeError(f"y: expected class indices as whole numbers, got dtype {labels.dtype}.")
        if labels.shape != (len(images),):
            raise ValueError(f"y: expected {len(images)} labels (N,), one per image of x, got shape {labels.shape}.")
        if labels.min() < 0:
            raise ValueError(f"y: expected class indices >= 0, got {labels.min()}.")
        self.scale = check_number(scale, "scale", exclusive=True)
        if images.max() > self.scale:
            raise ValueError(f"x: expected values in [0, {self.scale:g}] (scale), got {images.max()}.")
        self.x: NDArray[np.uint8] = images
        self.y: NDArray[np.int64] = labels.astype(np.int64)
        self._digests: list[str] = []

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image, float32 in [0, 1], ``(C, H, W)``, and its label."""
        return as_float(torch.from_numpy(self.x[index]), self.scale), int(self.y[index])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(C, H, W)``."""
        return tuple(self.x.shape[1:])

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """New arrays ``(x, y)``: all images as float32 in [0, 1], ``(N, C, H, W)``, and the labels as int64."""
        return self.x.astype(np.float32) / np.float32(self.scale), self.y.copy()

    def digests(self) -> list[str]:
        """A short hash of each image, which is equal for equal pixels."""
        if not self._digests:
            self._digests = [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() for image in self.x]
        return self._digests

    def subset(self, indices: Any) -> Images:
        """A copy of the images of these indices, in their order.

        :param indices: Whole numbers in [-N, N), ``(n,)``, at least one; or a mask, bool ``(N,)``.
        """
        given = as_array(indices, "indices")
        chosen = np.flatnonzero(given) if given.dtype.kind == "b" and given.shape == (len(self),) else given
        if chosen.ndim != 1 or len(chosen) == 0 or chosen.dtype.kind not in "iu":
            expected, got = f"at least one index (n,) or a mask ({len(self)},)", f"shape {given.shape} of {given.dtype}"
            raise ValueError(f"indices: expected {expected}, got {got}.")
        if chosen.min() < -len(self) or chosen.max() >= len(self):
            got = f"values in [{chosen.min()}, {chosen.max()}]"
            raise ValueError(f"indices: expected indices of {len(self)} images, got {got}.")
        return Images(self.x[chosen], self.y[chosen], self.scale)


class MixedData:
    """Data to train on, and extra data of which every batch holds a fixed share.

    A batch of B holds ``round(B * extra_fraction)`` extra samples at random places, the last one as near to that as
    whole samples allow. They come shuffled, none twice before all were used, on through the epochs.

    :param data: :class:`~art_lbgat.data.Images` or arrays ``(x, y)``; an epoch is each of these samples once.
    :param extra: The same, or the path of an ``.npz`` archive (see :func:`~art_lbgat.data.read_npz_images`).
    :param extra_fraction: Share of each batch that comes from ``extra``, in (0, 1).
    """

    def __init__(self, data: Any, extra: Any, extra_fraction: float) -> None:
        self.extra_fraction = check_share(extra_fraction, "extra_fraction")
        if isinstance(extra, (str, Path)):
            extra = read_npz_images(extra, "extra")
        self.data, self.extra = _samples(data, "data"), _samples(extra, "extra")
        shape, other = (np.shape(x.x if isinstance(x, Images) else x)[1:] for x, _ in (self.data, self.extra))
        if shape != other:
            raise ValueError(f"extra: expected samples of shape {shape} as in data, got {other}.")


def _samples(value: Any, name: str) -> tuple[Any, Any]:
    """``(x, y)`` of one half of mixed data; of ``Images`` themselves and None."""
    if isinstance(value, Images):
        return value, None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected Images or arrays (x, y), got {type(value).__name__}.")
    x, y = as_array(value[0], name), as_array(value[1], f"{name} (labels)")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name}: expected at least one sample, got none.")
    if y.ndim == 0 or len(y) != len(x):
        raise ValueError(f"{name} (labels): expected {len(x)} labels, one per sample of x, got shape {y.shape}.")
    return value[0], value[1]


def as_float(x: Tensor, scale: float) -> Tensor:
    """``x / scale`` of bytes as float32, the same bits on every device."""
    # By a tensor: CUDA multiplies by the reciprocal of a python number, which differs in the last bit.
    return x.float() / torch.full((), scale, device=x.device)


def read_images(paths: Sequence[str | Path], size: int | None = None, name: str = "paths") -> NDArray[np.uint8]:
    """Decode image files as RGB, upright; what a classifier that was trained on such files is to be given, times 255.

    :param paths: The files, at least one.
    :param size: Resize the middle square to this, bilinear with antialiasing; None to leave images that have one size.
    :param name: The name of the argument that ``paths`` came from, for errors.
    :return: uint8, ``(N, 3, H, W)``.
    :raises ValueError: If there is no file, images differ in size, or files are no images.
    """
    check_text(name, "name")
    if isinstance(paths, (str, bytes, Path)) or not isinstance(paths, Sequence):
        raise TypeError(f"{name}: expected a sequence of paths, got {paths!r}.")
    check_optional(check_count, size, "size")
    if not paths:
        raise ValueError(f"{name}: expected at least one image file, got none.")
    files = [check_path(path, name) for path in paths]
    images: NDArray[np.uint8] | None = None
    broken = []
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
        more = f" And {len(broken) - 1} more: {' '.join(broken[1:4])}" if len(broken) > 1 else ""
        raise ValueError(f"{broken[0]}{more}")
    return images


def is_image(path: Path) -> bool:
    """Whether a file is one to read: by its ending, whatever is in it, or by what is in it, whatever it is called."""
    if Image.registered_extensions().get(path.suffix.lower()) in _FORMATS:
        return True
    try:
        with Image.open(path, formats=_FORMATS):
            return True
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _decode(path: Path, size: int | None, name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path, formats=_FORMATS) as file:
            try:
                upright = ImageOps.exif_transpose(file)
            except (ValueError, TypeError, KeyError, struct.error, SyntaxError):
                upright = file  # damaged notes of how the camera was held are ignored, as every viewer does
            image = _eight_bits(upright, file.format).convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: expected the image {path}, but it does not exist.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: expected an image in {path} ({error}).") from error
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Grey levels of 16 bits as 8 bits; of 32 bits or floats, whose range no file says, only what are bytes already."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):  # as an old Pillow has them
        return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        low, high = np.asarray(image).min(), np.asarray(image).max()
        if not (low >= 0 and high <= 255) or (image.mode == "F" and 0 < high <= 1):
            kinds = {"I": "32-bit", "F": "float"}[image.mode]
            raise ValueError(f"its {kinds} values lie in [{low:g}, {high:g}]; expected [0, 255], or 8 or 16 bits")
    return image


def read_npz_images(path: str | Path, name: str = "path") -> Images:
    """The images and labels of one archive, such as those that generative models were sampled into.

    :param path: The file. Its images are under ``image``, ``images`` or ``x``: uint8, ``(N, H, W, C)``,
        ``(N, C, H, W)`` or ``(N, H, W)``; its labels under ``label``, ``labels`` or ``y``. Nothing is unpickled.
    :param name: The name of the argument it came from, for errors.
    :return: The images, channels first.
    """
    (images,) = read_npz(path, name, "image and label", [(("image", "images", "x"), ("label", "labels", "y"))])
    return images


def read_npz(
    path: Any, name: str, expected: str, keys: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]
) -> list[Images]:
    """Several pairs of images and labels of one archive, by the keys that either may have; nothing is unpickled."""
    path, wanted = check_path(path, name), f"{name}: expected an .npz archive with the keys {expected}"
    if not path.is_file():
        raise FileNotFoundError(f"{wanted} (numpy.savez), but {path} does not exist.")
    try:
        archive = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy and zipfile raise many types for a damaged file
        raise ValueError(f"{wanted}, but {path} is none.") from error
    if not hasattr(archive, "files"):
        raise ValueError(f"{wanted}, but {path} is a single array.")
    found = []
    with archive:
        for pair in keys:
            x, y = (_npz_array(archive, path, name, each) for each in pair)
            try:
                found.append(Images(channels_first(x), y))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: in {path}, {error}") from error
    return found


def _npz_array(archive: Any, path: Path, name: str, keys: tuple[str, ...]) -> NDArray[Any]:
    key = next((each for each in keys if each in archive.files), None)
    if key is None:
        raise ValueError(f"{name}: expected the key {' or '.join(map(repr, keys))} in {path}, got {archive.files}.")
    try:
        for packed in archive.zip.infolist():
            most = max(SMALL_ARRAY, _MOST_SHRUNK * packed.compress_size)
            if packed.filename in (key, f"{key}.npy") and packed.file_size > most:
                raise ValueError(f"{packed.compress_size:,} bytes that would fill {packed.file_size:,}")
        array: NDArray[Any] = archive[key]
        if not isinstance(array, np.ndarray):
            raise TypeError("a file that is no array")
    except Exception as error:  # an array of objects; damage, for which zipfile and zlib raise many types
        raise ValueError(f"{name}: expected an array of numbers under {key!r} of {path} ({error}).") from error
    return array


def channels_first(x: NDArray[Any]) -> NDArray[Any]:
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
