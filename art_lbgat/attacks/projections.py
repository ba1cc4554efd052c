"""Balls around the natural inputs: radii, random starts, and one step of an ascent with its projection.

A step follows one of two rules, which differ in the order of rounding only:

* *published* (Madry's and TRADES' code): Linf clamps ``x_adv`` between bounds; L1, L2 rescale, then clip to the range;
* *art* (``ProjectedGradientDescentPyTorch``): clips to the range first, then projects the difference ``x_adv - x``
  and adds it back, with the L2 ratio in float64. Used only to be bit-equal to an ART attack.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from art_lbgat.checks import as_array, check_number
from art_lbgat.classifier import TensorView

Bounds = tuple[Tensor, Tensor] | None  # lowest and highest valid inputs
Radius = float | Tensor  # one number, or one per sample, (N, 1, ..., 1)
Step = Callable[[Tensor, Tensor], Tensor]


def read_radius(value: Any, name: str, ndim: int, exclusive: bool = False) -> Radius:
    """A finite number >= 0 (``exclusive``: > 0) as a float, or one per sample as a float32 tensor of ``ndim`` axes."""
    if not isinstance(value, (np.ndarray, Tensor, list, tuple)):
        return check_number(value, name, exclusive=exclusive)
    array = as_array(value, name)
    if array.ndim == 0 or array.size != len(array) or array.size == 0:
        raise ValueError(
            f"{name}: expected one number, or one per sample of shape (N,) or (N, 1, ..., 1), got shape {array.shape}."
        )
    for number in array.ravel().tolist():
        check_number(number, name, exclusive=exclusive)
    return torch.from_numpy(array.astype(np.float32).reshape(-1, *[1] * (ndim - 1)))


def whole_range(view: TensorView, norm: float) -> float:
    """The largest distance between two inputs in ``clip_values``, in raw units; infinite without ``clip_values``."""
    if view.classifier.clip_values is None:
        return math.inf
    return float(view.value_range() * math.prod(view.classifier.input_shape) ** (1 / norm))


def check_scale(eps: Any, norm: float, view: TensorView) -> None:
    """Refuse a ball that holds the whole input range, as when eps is given in 0-255 units for inputs in [0, 1]."""
    reach, largest = whole_range(view, norm), float(np.max(as_array(eps, "eps")))
    if largest > reach * (1 + 1e-6):
        raise ValueError(
            f"eps: {largest:g} is larger than the whole range of inputs ({reach:g} for clip_values of {view.name}); "
            f"expected raw input units, so for inputs in [0, 1] divide an eps of 0-255 units by 255."
        )


def unit_uniform(x: Tensor, norm: float, generator: torch.Generator | None) -> Tensor:
    """Points uniform in the unit ball of ``norm`` around 0, one for each sample of ``x``, where ``generator`` is."""
    how: dict[str, Any] = {"generator": generator, "dtype": x.dtype, "device": place_of(generator)}
    if norm == math.inf:
        return torch.rand(x.shape, **how) * 2 - 1
    if norm == 1:  # the gaps of sorted uniform numbers, of either sign
        places = torch.rand(x.shape, **how).flatten(1).sort(dim=1).values
        signs = torch.randint(2, x.shape, generator=generator, device=places.device) * 2 - 1
        return places.diff(dim=1, prepend=places.new_zeros(len(x), 1)).reshape(x.shape) * signs
    direction = torch.randn(x.shape, **how).flatten(1)
    radius = torch.rand((len(x), 1), **how) ** (1.0 / max(direction.shape[1], 1))
    unit: Tensor = direction / direction.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return (unit * radius).reshape(x.shape)


def place_of(generator: torch.Generator | None) -> torch.device | None:
    """The device on which a generator draws; None, the default one, without."""
    return None if generator is None else generator.device


def make_step(rule: str, norm: float, eps: Radius, eps_step: Radius, x: Tensor, bounds: Bounds) -> Step:
    """``(x_adv, g) -> project(x_adv + eps_step * direction(g))`` around ``x``; it may write into both arguments."""

    def art(x_adv: Tensor, gradient: Tensor) -> Tensor:
        moved = x_adv + art_direction(gradient, norm).mul_(eps_step)
        return art_project(clip(moved, bounds), x, eps, norm)

    def finite(x_adv: Tensor, gradient: Tensor) -> Tensor:
        # Not add_(alpha=...), which may fuse the product into the sum and round once less.
        x_adv.add_(ascent_direction(gradient, norm).mul_(eps_step))
        return rescale(x_adv, x, eps, norm, bounds)

    def linf(x_adv: Tensor, gradient: Tensor) -> Tensor:
        direction = ascent_direction(gradient, norm)
        if isinstance(eps_step, Tensor):
            x_adv.add_(direction.mul_(eps_step))
        else:
            x_adv.add_(direction, alpha=eps_step)
        return torch.clamp(x_adv, low, high, out=x_adv)

    if rule == "art":
        return art
    if norm != math.inf:
        return finite
    # Ball and range in one clamp: equal to clamping to one after the other, since x lies in both.
    low, high = clip(x - eps, bounds), clip(x + eps, bounds)
    return linf


def clip(x: Tensor, bounds: Bounds) -> Tensor:
    """``min(max(x, low), high)``; ``x`` itself where there are no bounds."""
    return x if bounds is None else torch.clamp(x, bounds[0], bounds[1])


def ascent_direction(gradient: Tensor, norm: float) -> Tensor:
    """``sign(g)`` (written into ``g``) for Linf, of the largest ``|g|`` alone for L1; ``g / ||g||_2`` for L2, or 0."""
    if norm == math.inf:
        return gradient.sign_()
    if norm == 1:
        flat = gradient.flatten(1)
        place = flat.abs().argmax(dim=1, keepdim=True)
        return torch.zeros_like(flat).scatter_(1, place, flat.gather(1, place).sign_()).reshape(gradient.shape)
    length = _length(gradient)
    return gradient / torch.where(length == 0, 1.0, length)


def rescale(x_adv: Tensor, x: Tensor, eps: Radius, norm: float, bounds: Bounds) -> Tensor:
    """``clip(x + d * min(1, eps / ||d||))`` with ``d = x_adv - x``; clipping cannot leave the ball."""
    delta = x_adv - x
    length = _length(delta, norm)
    ratio = torch.where(length > eps, eps / torch.where(length == 0, 1.0, length), 1.0)
    return clip(x + delta * ratio, bounds)


def art_direction(gradient: Tensor, norm: float) -> Tensor:
    """As ART: NaN counts as 0; ``sign(g)`` for Linf, ``|g| * (1 / ||g||_2) * sign(g)`` for L2."""
    gradient = gradient.masked_fill_(gradient.isnan(), 0.0)
    if norm == math.inf:
        return gradient.sign_()
    flat = gradient.flatten(1)
    length = torch.linalg.norm(flat, ord=2, dim=1, keepdim=True)
    scaled: Tensor = flat.abs() * length.where(length == 0, 1 / length)
    return scaled.reshape(gradient.shape) * gradient.sign()


def art_project(x_adv: Tensor, x: Tensor, eps: Radius, norm: float) -> Tensor:
    """As ART: project ``x_adv - x`` onto the ball, then add ``x``; the L2 ratio is taken in float64."""
    delta = x_adv - x
    if norm == math.inf:
        return torch.clamp(delta, -eps, eps).add_(x)  # type: ignore[arg-type]
    flat = delta.flatten(1)
    length = torch.linalg.norm(flat, ord=2, dim=1, keepdim=True)
    limit = torch.as_tensor(eps, dtype=torch.float64, device=x.device).reshape(-1, 1)
    ratio = length.where(length == 0, torch.minimum(torch.ones_like(length), limit / length))
    projected: Tensor = (flat * ratio).to(x.dtype).reshape(x.shape) + x
    return projected


def _length(vectors: Tensor, norm: float = 2.0) -> Tensor:
    """The norm of each sample, ``(N, 1, ..., 1)``."""
    length: Tensor = vectors.flatten(1).norm(norm, dim=1)
    return length.reshape(-1, *[1] * (vectors.ndim - 1))
