"""One step of the ascent: ``x_adv, g -> project(x_adv + eps_step * direction(g))``, in each norm and rule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from art_lbgat.attacks import norms
from art_lbgat.attacks.ascent import Ascent
from art_lbgat.attacks.norms import Bounds

Step = Callable[[Tensor, Tensor], Tensor]


def make_step(ascent: Ascent, x: Tensor, bounds: Bounds) -> Step:
    """The step of an ascent around ``x``.

    :param ascent: Norm, radii and rule; radii per sample are those of ``x``.
    :param x: Natural inputs, ``(N, ...)``, inside ``bounds``.
    :param bounds: Range of valid inputs, or None.
    :return: ``(x_adv, gradient) -> x_adv``; may write into both.
    """
    if ascent.rule == "art":
        return _art(ascent, x, bounds)
    return _linf(ascent, x, bounds) if ascent.norm == math.inf else _l2(ascent, x, bounds)


def _linf(ascent: Ascent, x: Tensor, bounds: Bounds) -> Step:
    # Ball and range in one clamp: equal to clamping to one after the other, since x lies in both.
    low, high = norms.clip(x - ascent.eps, bounds), norms.clip(x + ascent.eps, bounds)

    def step(x_adv: Tensor, gradient: Tensor) -> Tensor:
        """One step; writes into ``x_adv``."""
        direction = norms.ascent_direction(gradient, ascent.norm)
        if isinstance(ascent.eps_step, Tensor):
            x_adv.add_(direction.mul_(ascent.eps_step))
        else:
            x_adv.add_(direction, alpha=ascent.eps_step)
        return torch.clamp(x_adv, low, high, out=x_adv)

    return step


def _l2(ascent: Ascent, x: Tensor, bounds: Bounds) -> Step:
    def step(x_adv: Tensor, gradient: Tensor) -> Tensor:
        """One step; writes into ``x_adv``."""
        # Not add_(alpha=...), which may fuse the product into the sum and round once less.
        x_adv.add_(norms.ascent_direction(gradient, ascent.norm).mul_(ascent.eps_step))
        return norms.project_l2(x_adv, x, ascent.eps, bounds)

    return step


def _art(ascent: Ascent, x: Tensor, bounds: Bounds) -> Step:
    def step(x_adv: Tensor, gradient: Tensor) -> Tensor:
        """One step; a new tensor."""
        moved = x_adv + norms.art_direction(gradient, ascent.norm).mul_(ascent.eps_step)
        return norms.art_project(norms.clip(moved, bounds), x, ascent.eps, ascent.norm)

    return step
