"""Augmentation of whole batches, a different draw for each image, keyed by a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from art_lbgat.checks import check_count


class Augmentation(Protocol):
    """What an augmentation must look like: ``(x, generator) -> x`` of the same shape, drawing from ``generator``."""

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """Return the augmented batch ``(N, C, H, W)``; must not change ``x``."""


@dataclass(frozen=True)
class RandomCropFlip:
    """Random crop of the padded image to its own size, then a horizontal flip with probability 1/2, per image.

    The augmentation of the LBGAT recipes on CIFAR (crop 32 with zero padding 4, flip). Torchvision's transforms draw
    once per call, which for a batch would be the same crop for every image.

    :param padding: Zero padding on each side, in pixels.
    :param flip: Whether to flip.
    :raises ValueError: A negative padding.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_count(self.padding, "padding", minimum=0)

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """Augment ``x``.

        :param x: Images, ``(N, C, H, W)``.
        :param generator: A CPU generator.
        :return: A new tensor of the same shape.
        :raises ValueError: If ``x`` is not a batch of images.
        """
        if x.ndim != 4:
            raise ValueError(f"augmentation: RandomCropFlip expects images (N, C, H, W), got shape {tuple(x.shape)}.")
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
