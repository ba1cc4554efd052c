"""One optimizer step over one or several models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def optimizer_step(
    loss: Tensor,
    modules: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    max_grad_norm: float | None,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Backward of ``loss``, clip, and one step of each optimizer.

    Gradients are cleared first, so that nothing an attack left behind is added.

    :param loss: A scalar with a graph.
    :param modules: The modules that are trained; all their gradients are cleared, whoever steps them.
    :param optimizers: Each steps its own parameters (one SGD over all of them is the same thing).
    :param max_grad_norm: Clip the joint L2 norm of all gradients to this, or None.
    :param scaler: Scales the loss of fp16; if any gradient overflows no optimizer steps, so that they stay together.
    """
    clear_gradients(modules)
    if scaler is not None:
        _scaled_step(loss, optimizers, max_grad_norm, scaler)
        return
    loss.backward()  # type: ignore[no-untyped-call]
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(_parameters(optimizers), max_grad_norm)
    for optimizer in optimizers:
        optimizer.step()


def _scaled_step(
    loss: Tensor,
    optimizers: Sequence[torch.optim.Optimizer],
    max_grad_norm: float | None,
    scaler: torch.amp.GradScaler,
) -> None:
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    limit = math.inf if max_grad_norm is None else max_grad_norm
    norm = torch.nn.utils.clip_grad_norm_(_parameters(optimizers), limit)
    if bool(torch.isfinite(norm)):
        for optimizer in optimizers:
            scaler.step(optimizer)
    scaler.update()  # once, whatever the number of optimizers


def clear_gradients(modules: Sequence[nn.Module]) -> None:
    """Set the gradient of every parameter to None."""
    for module in modules:
        module.zero_grad(set_to_none=True)


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first parameter group."""
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


def _parameters(optimizers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
