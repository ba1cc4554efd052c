"""Images held as bytes: a quarter of the memory of float32, and nothing is converted but the batch that is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from art_lbgat.checks import as_array, check_number


class Images(Dataset[tuple[Tensor, int]]):
    """Images of one size as bytes, with index labels; a torch ``Dataset`` of ``(x / scale, y)``.

    :param x: Images, uint8, ``(N, C, H, W)``, values in [0, scale]; not copied.
    :param y: Class indices, ``(N,)`` or ``(N, 1)``, any integer dtype; kept as int64.
    :param scale: The value that means 1.0: 255, or 16 for scikit-learn's digits.
    :raises TypeError: If ``x`` is not uint8, or ``y`` not whole numbers.
    :raises ValueError: Another shape, no image, another number of labels, a negative label, a value above ``scale``.
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

    def subset(self, indices: Any) -> Images:
        """A copy of the images of these indices, in their order.

        :param indices: Whole numbers in [-N, N), ``(n,)``, at least one; or a mask, bool ``(N,)``.
        :raises TypeError: If they are neither.
        :raises ValueError: Another shape, no index, or one outside the range.
        """
        chosen = as_array(indices, "indices")
        if chosen.ndim != 1 or len(chosen) == 0:
            raise ValueError(f"indices: expected at least one index (n,), got shape {chosen.shape}.")
        if chosen.dtype.kind == "f":
            raise TypeError(f"indices: expected whole numbers or a mask, got dtype {chosen.dtype}.")
        if chosen.dtype.kind == "b":
            if len(chosen) != len(self) or not chosen.any():
                raise ValueError(f"indices: expected a mask of {len(self)} images, at least one, got {chosen.shape}.")
        elif chosen.min() < -len(self) or chosen.max() >= len(self):
            raise ValueError(
                f"indices: expected indices of {len(self)} images, got values in [{chosen.min()}, {chosen.max()}]."
            )
        return Images(self.x[chosen], self.y[chosen], self.scale)


def as_float(x: Tensor, scale: float) -> Tensor:
    """``x / scale`` as float32, the same bits on every device.

    :param x: Bytes, of any shape.
    :param scale: The value that means 1.0.
    :return: A new tensor of the same shape.
    """
    # By a tensor: CUDA multiplies by the reciprocal of a python number, which differs in the last bit.
    return x.float() / torch.full((), scale, device=x.device)


def to_range(x: Tensor, bounds: tuple[Tensor, Tensor] | None) -> Tensor:
    """``low + x * (high - low)`` for ``x`` in [0, 1], never above ``high``.

    :param x: Images in [0, 1], ``(N, ...)``.
    :param bounds: ``low`` and ``high``, which broadcast against ``x``; None for [0, 1].
    :return: The images in the range of ``bounds``.
    """
    if bounds is None:
        return x
    low, high = bounds
    return torch.minimum(low + x * (high - low), high)
