"""The inner loop of every tensor attack: one description, one function.

x_0 = start(x);   x_{t+1} = project(x_t + eps_step * direction(grad_x loss(M(x_t))))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from art_lbgat.attacks import losses, norms
from art_lbgat.attacks.ascent import Ascent, Objective, draw_start
from art_lbgat.attacks.early_stop import Tally, ascend_early_stopped
from art_lbgat.attacks.norms import Bounds
from art_lbgat.attacks.step import make_step

__all__ = ["Ascent", "EstimatorLoss", "Logits", "Objective", "ascend", "draw_start"]

_T = TypeVar("_T")
Logits = Callable[[Tensor], Tensor]
EstimatorLoss = Callable[[Tensor, Tensor], Tensor]


def ascend(
    ascent: Ascent,
    logits: Logits,
    x: Tensor,
    y: Tensor | None,
    bounds: Bounds,
    starts: list[Tensor | None],
    estimator_loss: EstimatorLoss | None = None,
    *,
    warm_start: Tensor | None = None,
    tally: Tally | None = None,
) -> Tensor:
    """Adversarial examples of ``x``.

    The model must be in eval mode with frozen parameters (see :func:`art_lbgat.preserve.evaluating`); nothing but
    the gradient of the loss in ``x_adv`` is computed, and the natural prediction once, without a graph.

    :param ascent: What to run.
    :param logits: ``x -> M(x)``, differentiable, ``(N, ...) -> (N, C)``.
    :param x: Natural inputs, ``(N, ...)``, inside ``bounds``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``; not needed for ``objective="kl"`` unless it stops
        early.
    :param bounds: Range of valid inputs, or None.
    :param starts: The unit random numbers of each restart, from :func:`~art_lbgat.attacks.ascent.draw_start`.
    :param estimator_loss: The loss object for ``objective="estimator"``.
    :param warm_start: Points ``(N, ...)`` that, projected onto ball and range, are the first start instead.
    :param tally: Told of the steps and passes where the ascent stops early.
    :return: ``x_adv``, the shape and dtype of ``x``, without a graph.
    """
    x = x.detach()
    ascent = ascent.on(x.device)
    criterion, target = _objective(ascent, logits, x, y, estimator_loss)

    def loss(x_adv: Tensor) -> Tensor:
        return criterion(logits(x_adv), target)

    def run(start: Tensor) -> Tensor:
        """The ascent from one start."""
        if ascent.early_stop_steps is None:
            return _run(ascent, loss, x, bounds, start)
        labels = _required(y, "y")
        return ascend_early_stopped(ascent, logits, criterion, target, x, labels, bounds, start, tally)

    if tally is not None and ascent.early_stop_steps is not None and ascent.objective == "kl":
        tally.passes += len(x)
    if warm_start is None:
        best = run(_start(ascent, x, bounds, starts[0]))
    else:
        best = run(norms.project(warm_start.detach(), x, ascent.eps, ascent.norm, bounds))
    if len(starts) > 1:
        best_loss = _value(loss, best)
        for unit in starts[1:]:
            candidate = run(_start(ascent, x, bounds, unit))
            value = _value(loss, candidate)
            better = value > best_loss
            best = torch.where(better.reshape(-1, *[1] * (x.ndim - 1)), candidate, best)
            best_loss = torch.maximum(best_loss, value)
    return best


def _objective(
    ascent: Ascent, logits: Logits, x: Tensor, y: Tensor | None, estimator_loss: EstimatorLoss | None
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """What is ascended, ``(logits, target) -> (N,)``, and its target."""
    if ascent.objective == "kl":
        with torch.no_grad():
            return losses.kl_to_natural, torch.softmax(logits(x), dim=1)
    if ascent.objective == "ce":
        return losses.cross_entropy, _required(y, "y")
    if ascent.objective == "cw":
        return losses.margin, _required(y, "y")
    return _required(estimator_loss, "estimator_loss"), _required(y, "y")


def _run(ascent: Ascent, loss: Logits, x: Tensor, bounds: Bounds, x_adv: Tensor) -> Tensor:
    step = make_step(ascent, x, bounds)
    for _ in range(ascent.max_iter):
        with torch.enable_grad():
            value = loss(x_adv.requires_grad_(True)).sum()
            (gradient,) = torch.autograd.grad(value, x_adv)
        x_adv = step(x_adv.detach(), gradient)
    return x_adv


def _start(ascent: Ascent, x: Tensor, bounds: Bounds, unit: Tensor | None) -> Tensor:
    if unit is None:
        return x.clone()
    if ascent.start == "gaussian":
        return x + ascent.start_std * unit
    return norms.clip(x + ascent.eps * unit, bounds)


def _value(loss: Logits, x_adv: Tensor) -> Tensor:
    with torch.no_grad():
        return loss(x_adv)


def _required(value: _T | None, name: str) -> _T:
    if value is None:
        raise ValueError(f"{name}: this attack needs it, got None.")
    return value
