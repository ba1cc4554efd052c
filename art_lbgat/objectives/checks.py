"""What objectives refuse: types and shapes always; values only where looking at them waits for no device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from art_lbgat.checks import check_number

_SUM_TOLERANCE = 1e-3


def check_logits(**logits: Any) -> tuple[int, int]:
    """Raw logits of one shape, by the names of their arguments.

    :param logits: Float tensors, ``(N, C)``, at least one row.
    :return: ``N`` and ``C``.
    :raises TypeError: If one is no tensor of floats.
    :raises ValueError: If one has another shape.
    """
    first_name, first = "", torch.empty(0)
    for name, value in logits.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor of logits (N, C), got {type(value).__name__}.")
        if not value.is_floating_point():
            raise TypeError(f"{name}: expected logits as floats, got {value.dtype}.")
        if value.ndim != 2 or value.numel() == 0:
            raise ValueError(f"{name}: expected logits (N, C), at least one row, got shape {tuple(value.shape)}.")
        if first_name and value.shape != first.shape:
            raise ValueError(
                f"{name}: expected shape {tuple(first.shape)} as {first_name} has, got {tuple(value.shape)}."
            )
        first_name, first = first_name or name, value
    return first.shape[0], first.shape[1]


def check_targets(y: Any, rows: int, classes: int, of: str) -> None:
    """Labels of logits ``(N, C)``.

    :param y: Indices, int64 ``(N,)``, or probabilities, floats ``(N, C)``.
    :param rows: ``N``.
    :param classes: ``C``.
    :param of: The name of the logits.
    :raises TypeError: If they are no tensor, or of another type.
    :raises ValueError: Another shape; on the CPU also indices outside [0, C) or rows that are no probabilities.
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"y: expected a tensor of labels, got {type(y).__name__}.")
    if tuple(y.shape) != ((rows,) if y.ndim == 1 else (rows, classes)):
        raise ValueError(
            f"y: expected indices ({rows},) or rows ({rows}, {classes}) for {of} of shape ({rows}, {classes}), got "
            f"shape {tuple(y.shape)}."
        )
    if y.dtype != torch.int64 if y.ndim == 1 else not y.is_floating_point():
        raise TypeError(f"y: expected indices as int64 or rows as floats, got {y.dtype} of shape {tuple(y.shape)}.")
    if y.device.type != "cpu":
        return
    if y.ndim == 1:
        low, high = y.aminmax()
        if int(low) < 0 or int(high) >= classes:
            raise ValueError(
                f"y: expected class indices in [0, {classes - 1}] for {of} of shape ({rows}, {classes}), got values in "
                f"[{int(low)}, {int(high)}]."
            )
    elif not bool(((y >= 0).all(dim=1) & ((y.sum(dim=1) - 1).abs() <= _SUM_TOLERANCE)).all()):
        raise ValueError("y: expected rows that are probabilities (non-negative, sum 1).")


def check_weight(weight: Any, maximum: float | None = None) -> None:
    """The weight of a term.

    :param weight: A finite number >= 0.
    :param maximum: The largest that is allowed, or None.
    :raises TypeError: If it is no number.
    :raises ValueError: If it is outside the range.
    """
    number = check_number(weight, "weight")
    if maximum is not None and number > maximum:
        raise ValueError(f"weight: expected a number in [0, {maximum:g}], got {weight}.")
