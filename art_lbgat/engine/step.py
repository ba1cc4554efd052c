"""One optimizer step over one or several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def optimizer_step(loss: Tensor, optimizers: Sequence[torch.optim.Optimizer], max_grad_norm: float | None) -> None:
    """Backward of ``loss``, clip, and one step of each optimizer.

    Gradients are cleared first, so that nothing an attack left behind is added.

    :param loss: A scalar with a graph.
    :param optimizers: Each steps its own parameters (one SGD over all of them is the same thing).
    :param max_grad_norm: Clip the joint L2 norm of all gradients to this, or None.
    """
    clear_gradients(optimizers)
    loss.backward()  # type: ignore[no-untyped-call]
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(_parameters(optimizers), max_grad_norm)
    for optimizer in optimizers:
        optimizer.step()


def clear_gradients(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Set every gradient to None."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first parameter group."""
    return float(optimizer.param_groups[0]["lr"])


def step_schedulers(schedulers: Sequence[Any], error: float) -> None:
    """Step each scheduler at the end of an epoch.

    :param schedulers: Objects with a ``step``; ``ReduceLROnPlateau`` is given ``error``.
    :param error: What a plateau is measured on (lower is better).
    """
    for scheduler in schedulers:
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(error)
        else:
            scheduler.step()


def _parameters(optimizers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
