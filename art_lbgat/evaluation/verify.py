"""Adversarial examples are checked before an accuracy is computed from them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from art_lbgat.attacks.projections import Bounds
from art_lbgat.checks import check_kind, check_norm, check_number

TOLERANCE = 1e-6


def verify(x: Tensor, x_adv: Tensor, eps: float, norm: float, bounds: Bounds, scale: float, name: str) -> None:
    """Refuse examples outside the threat model: a number computed from them would mean nothing.

    :param x: Natural inputs, ``(N, ...)``.
    :param x_adv: Their adversarial examples, the same shape.
    :param eps: Radius of the ball, in raw input units.
    :param norm: ``math.inf`` or 2.
    :param bounds: Range of valid inputs, or None.
    :param scale: Range of the inputs; the tolerance is 1e-6 of it, of the largest natural value or of 1, whichever is
        most, since float32 cannot keep a ball around large values any closer.
    :param name: Name of the attack, for the message.
    :raises TypeError: Arguments of another type.
    :raises ValueError: Wrong shape, NaN or Inf, outside the range, or outside the ball by more than the tolerance.
    """
    _check(x, x_adv, eps, norm, bounds, scale)
    if x_adv.shape != x.shape:
        raise ValueError(f"{name}: x_adv has shape {tuple(x_adv.shape)}, expected {tuple(x.shape)} as x has.")
    finite = torch.isfinite(x_adv).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(f"{name}: x_adv has NaN or Inf in {int((~finite).sum())} samples, first in {_first(~finite)}.")
    tolerance = TOLERANCE * max(1.0, scale, float(x.abs().max()))
    if bounds is not None:
        outside = ((x_adv < bounds[0] - tolerance) | (x_adv > bounds[1] + tolerance)).flatten(1).any(dim=1)
        if bool(outside.any()):
            raise ValueError(
                f"{name}: x_adv leaves clip_values in {int(outside.sum())} samples, first in {_first(outside)}."
            )
    delta = (x_adv.double() - x.double()).flatten(1)
    size = delta.abs().amax(dim=1) if norm == math.inf else delta.norm(dim=1)
    far = size > eps + tolerance
    if bool(far.any()):
        raise ValueError(
            f"{name}: x_adv leaves the ball of eps={eps:g} in {int(far.sum())} samples, first in {_first(far)} "
            f"(distance {float(size.max()):g} at most)."
        )


def _check(x: Any, x_adv: Any, eps: Any, norm: Any, bounds: Any, scale: Any) -> None:
    for name, value in (("x", x), ("x_adv", x_adv)):
        if not check_kind(value, name, Tensor).is_floating_point() or value.ndim < 2:
            raise TypeError(f"{name}: expected floats (N, ...), got {value.dtype} of shape {tuple(value.shape)}.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x: expected finite values, got NaN or Inf.")
    check_number(eps, "eps")
    check_number(scale, "scale")
    check_norm(norm)
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(isinstance(b, Tensor) for b in bounds)
    if bounds is not None and not pair:
        raise TypeError(f"bounds: expected two tensors (low, high) or None, got {bounds!r}.")


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0, 0])
