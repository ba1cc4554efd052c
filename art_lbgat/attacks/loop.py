"""The inner loop of every tensor attack: one description, one function.

x_0 = start(x);   x_{t+1} = project(x_t + eps_step * direction(grad_x loss(M(x_t))))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from art_lbgat.attacks import losses, norms
from art_lbgat.attacks.norms import Bounds
from art_lbgat.attacks.radius import Radius

Objective = Literal["ce", "kl", "cw", "estimator"]


@dataclass(frozen=True)
class Ascent:
    """A projected gradient ascent, described completely.

    :param norm: ``math.inf`` or 2.
    :param eps: Radius of the ball, in raw input units; a float, or one per sample, ``(N, 1, ..., 1)``.
    :param eps_step: Length of a step, likewise.
    :param max_iter: Number of steps (``K``); 0 returns the start.
    :param objective: ``"ce"`` (cross-entropy with the labels), ``"kl"`` (KL to the fixed natural prediction),
        ``"cw"`` (the margin) or ``"estimator"`` (the loss object of the ART classifier, for attacks read from ART).
    :param start: ``"none"``, ``"uniform"`` (in the ball, then clipped to the range) or ``"gaussian"``
        (``x + start_std * N(0, 1)``, neither clipped nor projected, as in the TRADES code).
    :param start_std: Standard deviation of the Gaussian start, in raw input units.
    :param restarts: How many starts; for each sample the point of highest loss is kept.
    :param rule: Rounding order, see :mod:`art_lbgat.attacks.norms`.
    """

    norm: float
    eps: Radius
    eps_step: Radius
    max_iter: int
    objective: Objective = "ce"
    start: Literal["none", "uniform", "gaussian"] = "uniform"
    start_std: float = 0.0
    restarts: int = 1
    rule: Literal["published", "art"] = "published"

    def scaled(self, factor: float) -> Ascent:
        """The same ascent in a ball of ``factor * eps``, with steps of ``factor * eps_step`` (eps warm-up)."""
        return self if factor == 1 else replace(self, eps=self.eps * factor, eps_step=self.eps_step * factor)

    def rows(self, rows: slice, length: int) -> Ascent:
        """The same ascent for some of ``length`` samples: radii that are given per sample are taken for these.

        :raises ValueError: If there are not ``length`` of them.
        """
        changed: dict[str, Any] = {}
        for name in ("eps", "eps_step"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                if len(value) != length:
                    raise ValueError(f"{name}: expected one number, or {length}, one per sample, got {len(value)}.")
                changed[name] = value[rows]
        return replace(self, **changed) if changed else self

    def forwards(self) -> int:
        """Forward passes of one call of :func:`ascend` (the natural prediction once, one per step)."""
        choose = self.restarts if self.restarts > 1 else 0
        return (self.objective == "kl") + self.restarts * self.max_iter + choose

    def backwards(self) -> int:
        """Backward passes to the input of one call of :func:`ascend`."""
        return self.restarts * self.max_iter


_T = TypeVar("_T")
Logits = Callable[[Tensor], Tensor]
EstimatorLoss = Callable[[Tensor, Tensor], Tensor]


def draw_start(ascent: Ascent, x: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
    """The unit random numbers of one start, on the device of ``x``; None where the start is ``x`` itself.

    :param generator: A CPU generator; None draws from torch's global one.
    """
    if ascent.start == "none":
        return None
    if ascent.start == "gaussian":
        return norms.unit_gaussian(x, generator).to(x.device)
    return norms.unit_uniform(x, ascent.norm, generator).to(x.device)


def ascend(
    ascent: Ascent,
    logits: Logits,
    x: Tensor,
    y: Tensor | None,
    bounds: Bounds,
    starts: list[Tensor | None],
    estimator_loss: EstimatorLoss | None = None,
) -> Tensor:
    """Adversarial examples of ``x``.

    The model must be in eval mode with frozen parameters (see :func:`art_lbgat.engine.modes.evaluating`); nothing but
    the gradient of the loss in ``x_adv`` is computed, and the natural prediction once, without a graph.

    :param ascent: What to run.
    :param logits: ``x -> M(x)``, differentiable, ``(N, ...) -> (N, C)``.
    :param x: Natural inputs, ``(N, ...)``, inside ``bounds``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``; not needed for ``objective="kl"``.
    :param bounds: Range of valid inputs, or None.
    :param starts: The unit random numbers of each restart, from :func:`draw_start`.
    :param estimator_loss: The loss object for ``objective="estimator"``.
    :return: ``x_adv``, the shape and dtype of ``x``, without a graph.
    """
    x = x.detach()
    ascent = replace(ascent, eps=_on(ascent.eps, x), eps_step=_on(ascent.eps_step, x))
    loss: Callable[[Tensor], Tensor]
    if ascent.objective == "kl":
        with torch.no_grad():
            natural = torch.softmax(logits(x), dim=1)

        def loss(x_adv: Tensor) -> Tensor:
            return losses.kl_to_natural(logits(x_adv), natural)
    elif ascent.objective == "ce":
        target = _required(y, "y")

        def loss(x_adv: Tensor) -> Tensor:
            return losses.cross_entropy(logits(x_adv), target)
    elif ascent.objective == "cw":
        target = _required(y, "y")

        def loss(x_adv: Tensor) -> Tensor:
            return losses.margin(logits(x_adv), target)
    else:
        target, criterion = _required(y, "y"), _required(estimator_loss, "estimator_loss")

        def loss(x_adv: Tensor) -> Tensor:
            return criterion(logits(x_adv), target)

    best = _run(ascent, loss, x, bounds, starts[0])
    if len(starts) > 1:
        best_loss = _value(loss, best)
        for start in starts[1:]:
            candidate = _run(ascent, loss, x, bounds, start)
            value = _value(loss, candidate)
            better = value > best_loss
            best = torch.where(better.reshape(-1, *[1] * (x.ndim - 1)), candidate, best)
            best_loss = torch.maximum(best_loss, value)
    return best


def _run(ascent: Ascent, loss: Logits, x: Tensor, bounds: Bounds, unit: Tensor | None) -> Tensor:
    x_adv = _start(ascent, x, bounds, unit)
    published_linf = ascent.rule == "published" and ascent.norm == math.inf
    if published_linf:
        # Ball and range in one clamp: equal to clamping to one after the other, since x lies in both.
        low, high = x - ascent.eps, x + ascent.eps
        if bounds is not None:
            low, high = norms.clip(low, bounds), norms.clip(high, bounds)
    for _ in range(ascent.max_iter):
        with torch.enable_grad():
            value = loss(x_adv.requires_grad_(True)).sum()
            (gradient,) = torch.autograd.grad(value, x_adv)
        x_adv = x_adv.detach()
        if published_linf:
            direction = norms.ascent_direction(gradient, ascent.norm)
            if isinstance(ascent.eps_step, Tensor):
                x_adv.add_(direction.mul_(ascent.eps_step))
            else:
                x_adv.add_(direction, alpha=ascent.eps_step)
            torch.clamp(x_adv, low, high, out=x_adv)
        elif ascent.rule == "published":
            # Not add_(alpha=...), which may fuse the product into the sum and round once less.
            x_adv.add_(norms.ascent_direction(gradient, ascent.norm).mul_(ascent.eps_step))
            x_adv = norms.project_l2(x_adv, x, ascent.eps, bounds)
        else:
            step = norms.art_direction(gradient, ascent.norm).mul_(ascent.eps_step)
            x_adv = norms.art_project(norms.clip(x_adv + step, bounds), x, ascent.eps, ascent.norm)
    return x_adv


def _start(ascent: Ascent, x: Tensor, bounds: Bounds, unit: Tensor | None) -> Tensor:
    if unit is None:
        return x.clone()
    if ascent.start == "gaussian":
        return x + ascent.start_std * unit
    return norms.clip(x + ascent.eps * unit, bounds)


def _on(radius: Radius, x: Tensor) -> Radius:
    return radius.to(x.device) if isinstance(radius, Tensor) else radius


def _value(loss: Logits, x_adv: Tensor) -> Tensor:
    with torch.no_grad():
        return loss(x_adv)


def _required(value: _T | None, name: str) -> _T:
    if value is None:
        raise ValueError(f"{name}: this attack needs it, got None.")
    return value
