"""Norm geometry: unit random starts, steps and projections, for Linf and L2.

Two families of rules, which differ in the order of rounding:

* *published* (Madry's and TRADES' code): Linf clamps ``x_adv`` between bounds; L2 rescales, then clips to the range;
* *art* (``ProjectedGradientDescentPyTorch``): clips to the range first, then projects the difference ``x_adv - x``
  and adds it back, with the L2 ratio in float64. Used only to be bit-equal to an ART attack.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from art_lbgat.attacks.radius import Radius

Bounds = tuple[Tensor, Tensor] | None


def unit_gaussian(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of the shape of ``x``, drawn on the CPU.

    :param x: Whose shape and dtype they take.
    :param generator: A CPU generator; None draws from torch's global one.
    """
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


def unit_uniform(x: Tensor, norm: float, generator: torch.Generator | None) -> Tensor:
    """Points uniform in the unit ball of ``norm`` (inf or 2) around 0, one per sample, drawn on the CPU.

    :param x: Whose shape and dtype they take, ``(N, ...)``.
    :param norm: ``math.inf`` or 2.
    :param generator: A CPU generator; None draws from torch's global one.
    """
    if norm == math.inf:
        return torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype).flatten(1)
    radius = torch.rand((len(x), 1), generator=generator, dtype=x.dtype) ** (1.0 / max(direction.shape[1], 1))
    unit: Tensor = direction / direction.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return (unit * radius).reshape(x.shape)


def clip(x: Tensor, bounds: Bounds) -> Tensor:
    """``min(max(x, low), high)``; ``x`` itself where there are no bounds.

    :param x: Inputs, ``(N, ...)``.
    :param bounds: Lowest and highest values, or None.
    """
    return x if bounds is None else torch.clamp(x, bounds[0], bounds[1])


def ascent_direction(gradient: Tensor, norm: float) -> Tensor:
    """``sign(g)`` for Linf, ``g / ||g||_2`` for L2 (0 where the gradient is 0); may reuse the gradient's memory.

    :param gradient: ``g``, ``(N, ...)``.
    :param norm: ``math.inf`` or 2.
    """
    if norm == math.inf:
        return gradient.sign_()
    length = gradient.flatten(1).norm(dim=1).reshape(-1, *[1] * (gradient.ndim - 1))
    return gradient / torch.where(length == 0, 1.0, length)


def project_l2(x_adv: Tensor, x: Tensor, eps: Radius, bounds: Bounds) -> Tensor:
    """Published L2 rule: ``clip(x + d * min(1, eps / ||d||))`` with ``d = x_adv - x``.

    Clipping cannot leave the ball, since ``x`` lies inside the bounds.

    :param x_adv: The point, ``(N, ...)``.
    :param x: The centre of the ball.
    :param eps: Its radius.
    :param bounds: Lowest and highest values, or None.
    """
    delta = x_adv - x
    length = delta.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
    ratio = torch.where(length > eps, eps / torch.where(length == 0, 1.0, length), 1.0)
    return clip(x + delta * ratio, bounds)


def project(point: Tensor, x: Tensor, eps: Radius, norm: float, bounds: Bounds) -> Tensor:
    """The point moved into the ball of ``eps`` around ``x``, which lies inside ``bounds``, and into them.

    :param point: Any point, ``(N, ...)``.
    :param x: The centre of the ball.
    :param eps: Its radius.
    :param norm: ``math.inf`` or 2.
    :param bounds: Lowest and highest values, or None.
    """
    if norm == math.inf:
        return torch.clamp(point, clip(x - eps, bounds), clip(x + eps, bounds))
    return project_l2(point, x, eps, bounds)


def art_direction(gradient: Tensor, norm: float) -> Tensor:
    """ART's rule: NaN counts as 0; ``sign(g)`` for Linf, ``|g| * (1 / ||g||_2) * sign(g)`` for L2.

    :param gradient: ``g``, ``(N, ...)``.
    :param norm: ``math.inf`` or 2.
    """
    gradient = gradient.masked_fill_(gradient.isnan(), 0.0)
    if norm == math.inf:
        return gradient.sign_()
    flat = gradient.flatten(1)
    length = torch.linalg.norm(flat, ord=2, dim=1, keepdim=True)
    scaled: Tensor = flat.abs() * length.where(length == 0, 1 / length)
    return scaled.reshape(gradient.shape) * gradient.sign()


def art_project(x_adv: Tensor, x: Tensor, eps: Radius, norm: float) -> Tensor:
    """ART's rule: project ``x_adv - x`` onto the ball, then add ``x``; the L2 ratio is taken in float64.

    :param x_adv: The point, ``(N, ...)``.
    :param x: The centre of the ball.
    :param eps: Its radius.
    :param norm: ``math.inf`` or 2.
    """
    delta = x_adv - x
    if norm == math.inf:
        return torch.clamp(delta, -eps, eps).add_(x)  # type: ignore[arg-type]
    flat = delta.flatten(1)
    length = torch.linalg.norm(flat, ord=2, dim=1, keepdim=True)
    limit = torch.as_tensor(eps, dtype=torch.float64, device=x.device).reshape(-1, 1)
    ratio = length.where(length == 0, torch.minimum(torch.ones_like(length), limit / length))
    projected: Tensor = (flat * ratio).to(x.dtype).reshape(x.shape) + x
    return projected
