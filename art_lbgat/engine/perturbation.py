"""Adversarial weight perturbation (AWP, arXiv 2004.05884), exactly as published.

    v_l = gamma * ||w_l|| * g_l / ||g_l||,      g = grad_w loss(w; x_adv),      for every tensor w_l of dim > 1

The adversarial examples are made once, at the unperturbed weights ``w``. The gradient that is stepped with is taken at
``w + v``; after the optimizer's step ``v`` is subtracted again. Biases and the parameters of BatchNorm are left alone.
(The authors' code takes one SGD step of a copy of the model to find the direction, which is the same up to rounding.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Perturbation = list[Tensor | None]


def perturbed_parameters(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> list[nn.Parameter]:
    """The tensors that AWP moves: those of more than one dimension that an optimizer steps, in the module's order."""
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    return [p for p in module.parameters() if id(p) in held and p.requires_grad and p.dim() > 1]


def weight_perturbation(
    loss: Tensor,
    parameters: Sequence[nn.Parameter],
    gamma: float,
    reduce: Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]] = lambda gradients: gradients,
) -> Perturbation:
    """``gamma * ||w|| * g / ||g||`` for each parameter, the direction in which the loss rises fastest.

    ``reduce`` makes of the gradients of one process those of the global batch. None where the loss does not depend on
    a parameter; 0 where its gradient is 0 or not finite (weights moved by NaN could not be moved back).
    """
    gradients = reduce(torch.autograd.grad(loss, parameters, allow_unused=True))
    result: Perturbation = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            result.append(None)
            continue
        length = gradient.norm()
        scale = torch.where(length == 0, 0.0, parameter.detach().norm() / torch.where(length == 0, 1.0, length))
        result.append(torch.where(torch.isfinite(length), gamma * (scale * gradient), 0.0))
    return result


@contextmanager
def weights_perturbed(parameters: Sequence[nn.Parameter], perturbation: Perturbation) -> Iterator[None]:
    """The weights moved by ``perturbation`` inside the block; it is subtracted at the end, also after an exception."""
    pairs = [(p, v) for p, v in zip(parameters, perturbation, strict=True) if v is not None]
    _move(pairs, 1)
    try:
        yield
    finally:
        _move(pairs, -1)


def _move(pairs: Sequence[tuple[nn.Parameter, Tensor]], sign: int) -> None:
    with torch.no_grad():
        for parameter, value in pairs:
            parameter.add_(value, alpha=sign)


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Buffers (batch-norm statistics) as they were at the end of the block, whatever a forward pass did to them."""
    found = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in found:
                buffer.copy_(value)
