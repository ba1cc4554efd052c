"""Torchvision's transforms v2 as augmentations: keyed, with the global generators left as found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from art_lbgat.checks import check_count, check_flag, check_labels, check_number
from art_lbgat.data.augmentation import check_images
from art_lbgat.data.images import as_float
from art_lbgat.preserve import preserved_randomness, seed_everything


@dataclass(frozen=True)
class PerImage:
    """Any transform of torchvision v2, applied image by image.

    Torchvision draws once per call, so that a whole batch would get one draw. The transform draws from the global
    generators, which are seeded from ``generator`` for the batch and put back afterwards.

    :param transform: From an image ``(C, H, W)`` to an image of the same shape.
    :param as_bytes: Give the transform ``round(255 x)`` as uint8 and divide what comes back by 255: for colour
        transforms, which are defined on bytes. Images that were bytes divided by 255 are given exactly.
    """

    transform: Callable[[Any], Any]
    as_bytes: bool = False

    def __post_init__(self) -> None:
        if not callable(self.transform):
            raise TypeError(f"transform: expected a function from image to image, got {type(self.transform).__name__}.")
        check_flag(self.as_bytes, "as_bytes")

    def __call__(self, x: Tensor, generator: torch.Generator, /) -> Tensor:
        """Augment ``x``.

        :param x: Images, ``(N, C, H, W)``, in [0, 1] with ``as_bytes``.
        :param generator: A CPU generator.
        :return: A new tensor of the same shape.
        :raises ValueError: If ``x`` is not a batch of images, or with ``as_bytes`` not in [0, 1]; if an image comes
            back in another shape.
        """
        name = type(self.transform).__name__
        check_images(x, name)
        if self.as_bytes:
            # Not min() and max() alone: NaN is not in [0, 1] either.
            if not bool(((x >= 0) & (x <= 1)).all()):
                raise ValueError(
                    f"augmentation: {name} expects images in [0, 1] (it works on bytes), got values in "
                    f"[{float(x.min()):g}, {float(x.max()):g}]; expected a classifier with clip_values (0, 1)."
                )
            images = (x * 255).round().to(torch.uint8)
        else:
            images = x
        with seeded(generator):
            changed = [self.transform(image) for image in images]
        shapes = {tuple(image.shape) for image in changed}
        if shapes != {tuple(x.shape[1:])}:
            raise ValueError(
                f"augmentation: expected {name} to keep the shape {tuple(x.shape[1:])}, got {sorted(shapes)}."
            )
        batch = torch.stack(changed)
        return as_float(batch, 255.0) if self.as_bytes else batch


@dataclass(frozen=True)
class CutMix:
    """Torchvision's CutMix: a box of the neighbour in the batch, labels in proportion to the area (arXiv 1905.04899).

    One box and one proportion for the whole batch, as in the published code.

    :param nb_classes: Number of classes.
    :param alpha: Both parameters of the Beta distribution of the proportion.
    :raises ValueError: Fewer than two classes, or ``alpha`` not above 0.
    """

    nb_classes: int
    alpha: float = 1.0
    mixes_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self.nb_classes, "nb_classes", minimum=2)
        check_number(self.alpha, "alpha", exclusive=True)

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """Mix ``x`` and ``y``.

        :param x: Images, ``(N, C, H, W)``.
        :param y: Labels, indices ``(N,)`` or rows ``(N, nb_classes)``.
        :param generator: A CPU generator.
        :return: New images, and float32 rows ``(N, nb_classes)`` that sum to 1.
        :raises TypeError: If ``x`` or ``y`` is no tensor, or indices are not int64.
        :raises ValueError: If ``x`` is not a batch of images, or ``y`` not their labels.
        """
        from torchvision.transforms import v2

        check_images(x, "CutMix")
        if not isinstance(y, Tensor):
            raise TypeError(f"y: expected a tensor of labels, got {type(y).__name__}.")
        check_labels(y, self.nb_classes, length=len(x))
        if y.ndim == 1 and y.dtype != torch.int64:
            raise TypeError(f"y: expected indices as int64, got {y.dtype}.")
        with seeded(generator):
            mixed, rows = v2.CutMix(alpha=self.alpha, num_classes=self.nb_classes)(x, y)
        return mixed, rows.float()


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """The global generators seeded by one draw from ``generator`` inside the block, as found after it.

    :param generator: A CPU generator.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with preserved_randomness():
        seed_everything(seed)
        yield
