"""Augmentation of whole batches, a different draw for each image, keyed by a generator; and augmentations by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from art_lbgat.checks import (
    check_choice,
    check_count,
    check_flag,
    check_labels,
    check_number,
    check_optional,
    check_text,
)
from art_lbgat.classifier import naming
from art_lbgat.data.images import as_float
from art_lbgat.preserve import preserved_randomness, seed_everything


class Augmentation(Protocol):
    """What an augmentation must look like: ``(x, generator) -> x`` of the same shape, drawing from ``generator``."""

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """The augmented batch, in the classifier's layout; ``x`` is not changed. ``generator`` draws on the CPU."""


class LabelAugmentation(Protocol):
    """One that mixes labels too: ``(x, y, generator) -> (x, y)``, marked by ``mixes_labels = True``."""

    mixes_labels: ClassVar[bool]

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """The augmented batch and its labels, indices ``(N,)`` or soft rows ``(N, nb_classes)``."""


AnyAugmentation = Augmentation | LabelAugmentation


@dataclass(frozen=True)
class RandomCropFlip:
    """Random crop of the padded image to its own size, then a horizontal flip with probability 1/2, per image.

    The augmentation of the LBGAT recipes on CIFAR (crop 32 with zero padding 4, flip).

    :param padding: Zero padding on each side, in pixels; 0 only flips.
    :param flip: Whether to flip.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_count(self.padding, "padding", minimum=0)
        check_flag(self.flip, "flip")

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """See :class:`Augmentation`."""
        _check_images(x, "RandomCropFlip")
        n, _, height, width = x.shape
        place: dict[str, Any] = {"generator": generator, "device": getattr(generator, "device", None)}
        offsets = torch.randint(2 * self.padding + 1, (n, 2), **place).to(x.device)
        flips = torch.rand(n, **place).to(x.device) < 0.5
        padded = torch.nn.functional.pad(x, [self.padding] * 4)
        columns = torch.arange(width, device=x.device).expand(n, width)
        if self.flip:
            columns = torch.where(flips[:, None], width - 1 - columns, columns)
        rows = torch.arange(height, device=x.device) + offsets[:, :1]
        columns = columns + offsets[:, 1:]
        sample = torch.arange(n, device=x.device)[:, None, None]
        cropped = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
        return cropped.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Cutout:
    """A square of zeros at a random place of each image (arXiv 1708.04552).

    The centre is uniform over all pixels, so the square may be cut by the border.

    :param size: Side of the square in pixels; None for half the shorter side of the image, as in the paper.
    """

    size: int | None = None

    def __post_init__(self) -> None:
        check_optional(check_count, self.size, "size")

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """See :class:`Augmentation`."""
        _check_images(x, "Cutout")
        n, _, height, width = x.shape
        size = max(1, min(height, width) // 2) if self.size is None else self.size
        inside = []
        for length in (height, width):
            first = torch.randint(length, (n, 1), generator=generator).to(x.device) - size // 2
            place = torch.arange(length, device=x.device)
            inside.append((place >= first) & (place < first + size))
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return x.masked_fill(square[:, None], 0.0)


@dataclass(frozen=True)
class PerImage:
    """Any transform of torchvision v2, applied image by image, since it draws once per call.

    It draws from the global generators, which are seeded from ``generator`` and put back afterwards.

    :param transform: From an image ``(C, H, W)`` to an image of the same shape.
    :param as_bytes: Give it ``round(255 x)`` as uint8, on which colour transforms are defined; for images in [0, 1].
    """

    transform: Callable[[Any], Any]
    as_bytes: bool = False

    def __post_init__(self) -> None:
        if not callable(self.transform):
            raise TypeError(f"transform: expected a function from image to image, got {type(self.transform).__name__}.")
        check_flag(self.as_bytes, "as_bytes")

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """See :class:`Augmentation`."""
        name = type(self.transform).__name__
        _check_images(x, name)
        shape = tuple(x.shape[1:])
        # Not min() and max() alone: NaN is not in [0, 1] either.
        if self.as_bytes and not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError(
                f"augmentation: {name} expects images in [0, 1] (it works on bytes), got values in "
                f"[{float(x.min()):g}, {float(x.max()):g}]; expected a classifier with clip_values (0, 1)."
            )
        images = (x * 255).round().to(torch.uint8) if self.as_bytes else x
        with _seeded_by(generator), naming(lambda: f"augmentation: {name} fails on images of shape {shape}."):
            changed = [self.transform(image) for image in images]
        shapes = {tuple(image.shape) for image in changed}
        if shapes != {shape}:
            raise ValueError(f"augmentation: expected {name} to keep the shape {shape}, got {sorted(shapes)}.")
        return as_float(torch.stack(changed), 255.0) if self.as_bytes else torch.stack(changed)


@dataclass(frozen=True)
class CutMix:
    """Torchvision's CutMix: a box of the neighbour in the batch, labels in proportion to the area (arXiv 1905.04899).

    One box and one proportion for the whole batch, as in the published code.

    :param nb_classes: Number of classes.
    :param alpha: Both parameters of the Beta distribution of the proportion.
    """

    nb_classes: int
    alpha: float = 1.0
    mixes_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self.nb_classes, "nb_classes", minimum=2)
        check_number(self.alpha, "alpha", exclusive=True)

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """See :class:`LabelAugmentation`; indices must be int64, and rows come back as float32."""
        from torchvision.transforms import v2

        _check_images(x, "CutMix")
        if not isinstance(y, Tensor):
            raise TypeError(f"y: expected a tensor of labels, got {type(y).__name__}.")
        check_labels(y, self.nb_classes, length=len(x))
        if y.ndim == 1 and y.dtype != torch.int64:
            raise TypeError(f"y: expected indices as int64, got {y.dtype}.")
        with _seeded_by(generator):
            mixed, rows = v2.CutMix(alpha=self.alpha, num_classes=self.nb_classes)(x, y)
        return mixed, rows.float()


@contextmanager
def _seeded_by(generator: torch.Generator) -> Iterator[None]:
    """The global generators seeded by one draw from ``generator`` inside the block, restored after it."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with preserved_randomness():
        seed_everything(seed)
        yield


def _check_images(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"augmentation: {name} expects images (N, C, H, W) as x, a tensor, got {type(x).__name__}.")
    if x.ndim != 4:
        raise ValueError(f"augmentation: {name} expects images (N, C, H, W) as x, got shape {tuple(x.shape)}.")


@dataclass(frozen=True)
class Chain:
    """Augmentations one after the other, all drawing from one generator; it mixes labels if one of them does."""

    parts: tuple[AnyAugmentation, ...]

    @property
    def mixes_labels(self) -> bool:
        """Whether it is called as :class:`LabelAugmentation`."""
        return any(getattr(part, "mixes_labels", False) for part in self.parts)

    def __call__(self, x: Tensor, *labels_and_generator: Any) -> Any:
        """See :class:`Augmentation` and :class:`LabelAugmentation`."""
        *labels, generator = labels_and_generator
        y = labels[0] if labels else torch.empty(0)
        for part in self.parts:
            x, y = apply(part, x, y, generator)
        return (x, y) if labels else x


#: Those that know which axes of a batch are height and width.
OF_IMAGES = (RandomCropFlip, Cutout, PerImage, CutMix, Chain)


def apply(
    augmentation: AnyAugmentation, x: Tensor, y: Tensor, generator: torch.Generator, channels_last: bool = False
) -> tuple[Tensor, Tensor]:
    """Images and labels as an augmentation of either kind gives them back: tensors, and nothing more is checked.

    Of batches ``(N, H, W, C)`` those of this module see ``(N, C, H, W)``, a function of the user's the batch itself.
    """
    if channels_last and isinstance(augmentation, OF_IMAGES):
        x, y = apply(augmentation, x.movedim(-1, 1), y, generator)
        return x.movedim(1, -1).contiguous(), y
    if getattr(augmentation, "mixes_labels", False):
        pair = augmentation(x, y, generator)  # type: ignore[call-arg, arg-type]
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(each, Tensor) for each in pair):
            raise TypeError(f"augmentation: expected a pair of tensors (x, y) back, got {type(pair).__name__}.")
        return pair[0], pair[1]
    changed = augmentation(x, generator)  # type: ignore[call-arg, arg-type]
    if not isinstance(changed, Tensor):
        raise TypeError(f"augmentation: expected a tensor back, got {type(changed).__name__}.")
    return changed, y


def make_augmentation(
    name: str, nb_classes: int, padding: int = 4, argument: str = "name"
) -> Augmentation | LabelAugmentation | None:
    """The augmentation of a name: parts joined by ``+``, applied from left to right.

    The parts are ``crop``, ``flip``, ``cutout``, ``autoaugment`` (CIFAR-10's policy), ``autoaugment-svhn``,
    ``randaugment`` and ``cutmix``, each at most once. Neighbouring ``crop`` and ``flip`` are one
    :class:`RandomCropFlip`.

    :param name: Such as ``"crop+flip+cutout"``, or ``"none"``.
    :param nb_classes: Number of classes, for labels that are mixed.
    :param padding: Padding of ``crop``, in pixels.
    :param argument: The name of the argument that ``name`` came from, for errors.
    :return: The augmentation, or None for ``"none"``.
    """
    from torchvision.transforms import v2

    check_text(name, argument)
    check_count(nb_classes, "nb_classes", minimum=2)
    check_count(padding, "padding")
    made: dict[str, AnyAugmentation] = {
        "crop": RandomCropFlip(padding, flip=False),
        "flip": RandomCropFlip(0),
        "cutout": Cutout(),
        "autoaugment": PerImage(v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10), as_bytes=True),
        "autoaugment-svhn": PerImage(v2.AutoAugment(v2.AutoAugmentPolicy.SVHN), as_bytes=True),
        "randaugment": PerImage(v2.RandAugment(), as_bytes=True),
        "cutmix": CutMix(nb_classes),
    }
    names = name.split("+")
    if names == ["none"]:
        return None
    for each in names:
        check_choice(each, argument, [*made, "none"])
    if "none" in names:
        raise ValueError(f"{argument}: expected 'none' alone, got {name!r}.")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument}: expected each part once, got {name!r}.")
    made["crop&flip"] = RandomCropFlip(padding)
    names = name.replace("flip+crop", "crop+flip").replace("crop+flip", "crop&flip").split("+")
    return made[names[0]] if len(names) == 1 else Chain(tuple(made[each] for each in names))
