"""The radius of a ball and the length of a step: one number, or one per sample."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from art_lbgat.checks import as_array, check_number
from art_lbgat.classifier import TensorView

Radius = float | Tensor


def check_radius(value: Any, name: str, exclusive: bool = False) -> None:
    """Refuse what is neither a number nor one number per sample.

    :param value: A number, or an array of shape ``(N,)`` or ``(N, 1, ..., 1)``, as ART's attacks take it.
    :param name: The name of the argument.
    :param exclusive: Whether 0 is refused as well.
    :raises TypeError: If it is no number or array of numbers.
    :raises ValueError: Negative, NaN or infinite values, or an array of another shape.
    """
    if not isinstance(value, (np.ndarray, Tensor, list, tuple)):
        check_number(value, name, exclusive=exclusive)
        return
    array = as_array(value, name)
    if array.ndim == 0 or array.size != len(array) or array.size == 0:
        raise ValueError(
            f"{name}: expected one number, or one per sample of shape (N,) or (N, 1, ..., 1), got shape {array.shape}."
        )
    for number in array.ravel().tolist():
        check_number(number, name, exclusive=exclusive)


def check_ascent_radius(value: Any, name: str) -> None:
    """Refuse what is neither a number >= 0 (infinite ones of ART included) nor a tensor of one number per sample.

    :param value: As :data:`Radius`; the values of a tensor are not looked at, which would wait for its device.
    :param name: The name of the argument.
    :raises TypeError: If it is neither.
    :raises ValueError: If it is negative or NaN, or a tensor of another shape.
    """
    if isinstance(value, Tensor):
        if value.ndim == 0 or value.numel() != len(value):
            raise ValueError(f"{name}: expected one number per sample, (N, 1, ..., 1), got shape {tuple(value.shape)}.")
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number >= 0, or a tensor of them, got {value!r}.")
    elif not float(value) >= 0:
        raise ValueError(f"{name}: expected a number >= 0, got {value}.")


def as_radius(value: Any, ndim: int) -> Radius:
    """A checked value as the loop takes it: a float, or a float32 tensor ``(N, 1, ..., 1)`` with ``ndim`` axes.

    :param value: A number, or an array of one per sample.
    :param ndim: Number of axes of a batch.
    """
    if not isinstance(value, (np.ndarray, Tensor, list, tuple)):
        return float(value)
    array = as_array(value, "eps").astype(np.float32)
    return torch.from_numpy(array.reshape(-1, *[1] * (ndim - 1)))


def check_scale(eps: Any, norm: float, view: TensorView) -> None:
    """Refuse a ball that holds the whole input range, as when eps is given in 0-255 units for inputs in [0, 1].

    :param eps: Radius in raw input units, a number or one per sample.
    :param norm: ``math.inf`` or 2.
    :param view: The classifier whose ``clip_values`` bound the inputs; without them nothing is known.
    :raises ValueError: If ``eps`` is larger than the largest distance between two inputs.
    """
    if view.classifier.clip_values is None:
        return
    reach = view.value_range()
    if norm == 2:
        reach *= math.sqrt(math.prod(view.classifier.input_shape))
    largest = float(np.max(as_array(eps, "eps")))
    if largest > reach * (1 + 1e-6):
        raise ValueError(
            f"eps: {largest:g} is larger than the whole range of inputs ({reach:g} for clip_values of {view.name}); "
            f"expected raw input units, so for inputs in [0, 1] divide an eps of 0-255 units by 255."
        )
