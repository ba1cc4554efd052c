"""One training step of the published LBGAT + TRADES procedure, as its released code runs it; not the package's code.

What makes it slower is kept, and nothing else is: both models' forwards at every attack step (the natural one again
and again, with a graph), both student forwards of the loss with a graph whatever ``a`` is. Gradients of the attack are
taken with respect to ``x_adv`` alone, as in the released code, so parameter gradients are computed in the last backward
only. What stays in memory is kept as well: the loss of the last attack step is in scope until the loss is formed, and
holds the graph of its natural forward. Source: arXiv 2011.11164 and the steps of its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS, STEP = 0.031, 0.007


def step(
    student: nn.Module,
    guide: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    alpha: float,
    steps: int,
    noise: Tensor | None = None,
    eps: float = EPS,
    length: float = STEP,
) -> None:
    """Attack, loss, backward, and one step of the optimizer of both models.

    :param student: The robust model.
    :param guide: The natural model, trained with it.
    :param optimizer: One over the parameters of both.
    :param x: Natural images in [0, 1], ``(N, ...)``.
    :param y: Labels, ``(N,)``.
    :param alpha: Weight of the KL term.
    :param steps: Steps of the attack (``K``).
    :param noise: Normal numbers for the start; None draws them.
    :param eps: Radius of the attack.
    :param length: Length of its steps.
    """
    optimizer.zero_grad()
    student.eval()
    x_adv = x.detach() + 0.001 * (torch.randn_like(x) if noise is None else noise)
    for _ in range(steps):
        x_adv.requires_grad_()
        kl = functional.kl_div(
            functional.log_softmax(student(x_adv), dim=1), functional.softmax(student(x), dim=1), reduction="sum"
        )
        (gradient,) = torch.autograd.grad(kl, [x_adv])
        x_adv = x_adv.detach() + length * torch.sign(gradient)
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
        x_adv = torch.clamp(x_adv, 0.0, 1.0)
    student.train()
    guide.train()
    optimizer.zero_grad()
    adversarial, natural, target = student(x_adv), student(x), guide(x)
    loss = functional.mse_loss(adversarial, target) + functional.cross_entropy(target, y)
    kl = functional.kl_div(
        functional.log_softmax(adversarial, dim=1), functional.softmax(natural, dim=1), reduction="sum"
    ) / len(x)
    (loss + alpha * kl).backward()
    optimizer.step()
