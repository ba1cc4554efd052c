"""One optimizer step over one or several models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def take_gradients(
    loss: Tensor,
    modules: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    max_grad_norm: float | None,
    scaler: torch.amp.GradScaler | None,
    backward: Callable[[Tensor], None],
) -> Tensor:
    """Backward of ``loss``, and clip: every gradient is that of this step alone.

    Gradients are cleared first, so that nothing an attack left behind is added.

    :param loss: A scalar with a graph.
    :param modules: The modules that are trained; all their gradients are cleared, whoever steps them.
    :param optimizers: Each holds its own parameters (one SGD over all of them is the same thing).
    :param max_grad_norm: Clip the joint L2 norm of all gradients to this, or None.
    :param scaler: Scales the loss of fp16, or None.
    :param backward: Computes the gradients.
    :return: The joint L2 norm before clipping, a scalar; not finite if and only if a gradient (or the norm) is not.
    """
    clear_gradients(modules)
    backward(loss if scaler is None else scaler.scale(loss))
    if scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    parameters = [p for o in optimizers for group in o.param_groups for p in group["params"] if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_grad_norm is None else max_grad_norm)


def step_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], norm: Tensor, scaler: torch.amp.GradScaler | None
) -> None:
    """One step of each optimizer; with fp16 of none if a gradient overflowed, so that they stay together.

    :param optimizers: The optimizers.
    :param norm: What :func:`take_gradients` gave.
    :param scaler: Scales the loss of fp16, or None.
    """
    if scaler is None:
        for optimizer in optimizers:
            optimizer.step()
        return
    if bool(torch.isfinite(norm)):
        for optimizer in optimizers:
            scaler.step(optimizer)
    scaler.update()  # once, whatever the number of optimizers


def clear_gradients(modules: Sequence[nn.Module]) -> None:
    """Set the gradient of every parameter to None.

    :param modules: The modules.
    """
    for module in modules:
        module.zero_grad(set_to_none=True)


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first parameter group.

    :param optimizer: The optimizer.
    """
    return float(optimizer.param_groups[0]["lr"])


def step_schedulers(schedulers: Sequence[Any], error: float | None) -> None:
    """Step each scheduler at the end of an epoch.

    :param schedulers: Objects with a ``step``; ``ReduceLROnPlateau`` is given ``error``, where there is one.
    :param error: What a plateau is measured on (lower is better); None in an epoch that was not measured.
    """
    for scheduler in schedulers:
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if error is not None:
                scheduler.step(error)
        else:
            scheduler.step()


def scale_learning_rates(optimizers: Sequence[torch.optim.Optimizer], schedulers: Sequence[Any], factor: float) -> None:
    """Multiply all learning rates, present and to come, by ``factor``.

    :param optimizers: Their groups' rates, and what schedulers keep in the groups.
    :param schedulers: Their base rates, those of nested schedulers too.
    :param factor: In (0, 1).
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.update({n: group[n] * factor for n in ("lr", "initial_lr", "max_lr", "min_lr") if n in group})
    for scheduler in schedulers:
        for name in ("base_lrs", "max_lrs", "_last_lr"):
            if isinstance(getattr(scheduler, name, None), list):
                setattr(scheduler, name, [rate * factor for rate in getattr(scheduler, name)])
        scale_learning_rates([], getattr(scheduler, "_schedulers", ()), factor)
