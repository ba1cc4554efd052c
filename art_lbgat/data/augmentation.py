"""Augmentation of whole batches, a different draw for each image, keyed by a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from art_lbgat.checks import check_count, check_flag


class Augmentation(Protocol):
    """What an augmentation must look like: ``(x, generator) -> x`` of the same shape, drawing from ``generator``."""

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """Return the augmented batch ``(N, C, H, W)``; must not change ``x``.

        ``generator`` lives on the CPU; ``x`` is on the classifier's device where it comes from
        :class:`~art_lbgat.data.Images`, so what is drawn has to be moved to ``x.device``.
        """


class LabelAugmentation(Protocol):
    """One that mixes labels too: ``(x, y, generator) -> (x, y)``, marked by ``mixes_labels = True``."""

    mixes_labels: ClassVar[bool]

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """Return the augmented batch and its labels, indices ``(N,)`` or soft rows ``(N, nb_classes)``."""


@dataclass(frozen=True)
class RandomCropFlip:
    """Random crop of the padded image to its own size, then a horizontal flip with probability 1/2, per image.

    The augmentation of the LBGAT recipes on CIFAR (crop 32 with zero padding 4, flip). Torchvision's transforms draw
    once per call, which for a batch would be the same crop for every image.

    :param padding: Zero padding on each side, in pixels; 0 only flips.
    :param flip: Whether to flip.
    :raises TypeError: A padding that is no whole number, or ``flip`` that is no bool.
    :raises ValueError: A negative padding.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_count(self.padding, "padding", minimum=0)
        check_flag(self.flip, "flip")

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """Augment ``x``.

        :param x: Images, ``(N, C, H, W)``.
        :param generator: A CPU generator.
        :return: A new tensor of the same shape.
        :raises ValueError: If ``x`` is not a batch of images.
        """
        check_images(x, "RandomCropFlip")
        n, _, height, width = x.shape
        offsets = torch.randint(2 * self.padding + 1, (n, 2), generator=generator).to(x.device)
        flips = torch.rand(n, generator=generator).to(x.device) < 0.5
        padded = torch.nn.functional.pad(x, [self.padding] * 4)
        columns = torch.arange(width, device=x.device).expand(n, width)
        if self.flip:
            columns = torch.where(flips[:, None], width - 1 - columns, columns)
        rows = torch.arange(height, device=x.device) + offsets[:, :1]
        columns = columns + offsets[:, 1:]
        sample = torch.arange(n, device=x.device)[:, None, None]
        return (
            padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
        )


@dataclass(frozen=True)
class Cutout:
    """A square of zeros at a random place of each image (arXiv 1708.04552).

    The centre is uniform over all pixels, so the square may be cut by the border. What is put in is the raw value 0,
    which the classifier's ``clip_values`` must contain.

    :param size: Side of the square in pixels; None for half the shorter side of the image (16 for 32x32, as in the
        paper for CIFAR-10).
    :raises ValueError: A size below 1.
    """

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            check_count(self.size, "size")

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """Augment ``x``.

        :param x: Images, ``(N, C, H, W)``.
        :param generator: A CPU generator.
        :return: A new tensor of the same shape.
        :raises ValueError: If ``x`` is not a batch of images.
        """
        check_images(x, "Cutout")
        n, _, height, width = x.shape
        size = max(1, min(height, width) // 2) if self.size is None else self.size
        inside = []
        for length in (height, width):
            first = torch.randint(length, (n, 1), generator=generator).to(x.device) - size // 2
            place = torch.arange(length, device=x.device)
            inside.append((place >= first) & (place < first + size))
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return x.masked_fill(square[:, None], 0.0)


def check_images(x: Tensor, name: str) -> None:
    """Refuse what is no batch of images.

    :param x: What the augmentation was given.
    :param name: The augmentation.
    :raises TypeError: If ``x`` is no tensor.
    :raises ValueError: If ``x`` has not four dimensions.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"augmentation: {name} expects images (N, C, H, W) as x, a tensor, got {type(x).__name__}.")
    if x.ndim != 4:
        raise ValueError(f"augmentation: {name} expects images (N, C, H, W) as x, got shape {tuple(x.shape)}.")
