"""Augmentation by name, such as ``"crop+flip+cutout"``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from art_lbgat.checks import check_choice, check_count, check_text
from art_lbgat.data.augmentation import Augmentation, Cutout, LabelAugmentation, RandomCropFlip
from art_lbgat.data.transforms import CutMix, PerImage

AUGMENTATIONS = ("crop", "flip", "cutout", "autoaugment", "autoaugment-svhn", "randaugment", "cutmix")
"""The parts that a name may be joined of."""


@dataclass(frozen=True)
class Chain:
    """Augmentations one after the other, all drawing from one generator.

    :param parts: The augmentations, first to last.
    """

    parts: tuple[Augmentation, ...]

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """Return the batch after all parts, of the same shape."""
        for part in self.parts:
            x = part(x, generator)
        return x


@dataclass(frozen=True)
class LabelChain:
    """Augmentations one after the other, of which some mix labels.

    :param parts: The augmentations, first to last.
    """

    parts: tuple[Augmentation | LabelAugmentation, ...]
    mixes_labels: ClassVar[bool] = True

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """Return the batch and its labels after all parts."""
        for part in self.parts:
            x, y = apply(part, x, y, generator)
        return x, y


def apply(
    augmentation: Augmentation | LabelAugmentation, x: Tensor, y: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """``augmentation`` of either kind.

    :param augmentation: Called with the labels if it says ``mixes_labels``.
    :param x: Images, ``(N, C, H, W)``.
    :param y: Labels, indices ``(N,)`` or rows ``(N, nb_classes)``.
    :param generator: A CPU generator.
    :return: Images and labels as it gives them back, not checked.
    :raises TypeError: If one that mixes labels gives no pair, or one of either kind no tensor.
    """
    if mixes_labels(augmentation):
        pair = augmentation(x, y, generator)  # type: ignore[call-arg, arg-type]
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(each, Tensor) for each in pair):
            raise TypeError(f"augmentation: expected a pair of tensors (x, y) back, got {type(pair).__name__}.")
        return pair[0], pair[1]
    changed = augmentation(x, generator)  # type: ignore[call-arg, arg-type]
    if not isinstance(changed, Tensor):
        raise TypeError(f"augmentation: expected a tensor back, got {type(changed).__name__}.")
    return changed, y


def mixes_labels(augmentation: object) -> bool:
    """Whether an augmentation takes and gives labels too.

    :param augmentation: An augmentation, or None.
    """
    return bool(getattr(augmentation, "mixes_labels", False))


def make_augmentation(
    name: str, nb_classes: int, padding: int = 4, argument: str = "name"
) -> Augmentation | LabelAugmentation | None:
    """The augmentation of a name: parts joined by ``+``, applied from left to right.

    ``crop`` pads by ``padding`` and crops at random, ``flip`` flips with probability 1/2, ``cutout`` blanks a square of
    half the side, ``autoaugment`` and ``autoaugment-svhn`` are the policies found on CIFAR-10 and on SVHN,
    ``randaugment`` is torchvision's with its defaults, ``cutmix`` mixes neighbours and their labels. Neighbouring
    ``crop`` and ``flip`` are one :class:`RandomCropFlip`.

    :param name: Such as ``"crop+flip+cutout"``, or ``"none"``.
    :param nb_classes: Number of classes, for labels that are mixed.
    :param padding: Padding of ``crop``, in pixels.
    :param argument: The name of the argument that ``name`` came from, for errors.
    :return: The augmentation, or None for ``"none"``.
    :raises TypeError: A name that is no text, counts that are no whole numbers.
    :raises ValueError: An unknown part, with the nearest name; a part given twice; ``"none"`` with another part.
    """
    check_text(name, argument)
    check_count(nb_classes, "nb_classes", minimum=2)
    check_count(padding, "padding")
    names = name.split("+")
    if names == ["none"]:
        return None
    for each in names:
        check_choice(each, argument, [*AUGMENTATIONS, "none"])
    if "none" in names:
        raise ValueError(f"{argument}: expected 'none' alone, got {name!r}.")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument}: expected each part once, got {name!r}.")
    joined = "+".join(names).replace("flip+crop", "crop+flip").replace("crop+flip", "crop&flip").split("+")
    parts = tuple(_part(each, nb_classes, padding) for each in joined)
    if len(parts) == 1:
        return parts[0]
    if any(mixes_labels(part) for part in parts):
        return LabelChain(parts)
    return Chain(parts)  # type: ignore[arg-type]


def _part(name: str, nb_classes: int, padding: int) -> Augmentation | LabelAugmentation:
    from torchvision.transforms import v2

    if name in ("crop", "flip", "crop&flip"):
        return RandomCropFlip(0 if name == "flip" else padding, flip=name != "crop")
    if name == "cutout":
        return Cutout()
    if name == "cutmix":
        return CutMix(nb_classes)
    if name == "randaugment":
        return PerImage(v2.RandAugment(), as_bytes=True)
    policy = v2.AutoAugmentPolicy.SVHN if name == "autoaugment-svhn" else v2.AutoAugmentPolicy.CIFAR10
    return PerImage(v2.AutoAugment(policy), as_bytes=True)
