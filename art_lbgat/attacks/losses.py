"""What an attack ascends: per-sample losses of the logits, shape ``(N, C) -> (N,)``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """``CE(M(x_adv), y)`` per sample.

    :param logits: ``(N, C)``.
    :param target: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :return: ``(N,)``.
    """
    return functional.cross_entropy(logits, target, reduction="none")


def kl_to_natural(logits: Tensor, natural: Tensor) -> Tensor:
    """``KL(softmax M(x) || softmax M(x_adv))`` per sample, the natural prediction being fixed (arXiv 1901.08573).

    :param logits: ``M(x_adv)``, ``(N, C)``.
    :param natural: ``softmax M(x)``, ``(N, C)``, without a graph.
    :return: ``(N,)``.
    """
    return functional.kl_div(functional.log_softmax(logits, dim=1), natural, reduction="none").sum(dim=1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """``max_{j != y} M(x_adv)_j - M(x_adv)_y`` per sample: positive where the sample is misclassified.

    The margin loss of Carlini and Wagner (arXiv 1608.04644, f_6 on logits, confidence not clipped), as PGD ascends it.

    :param logits: ``(N, C)``.
    :param target: Labels, indices ``(N,)`` or probabilities ``(N, C)``, of which the largest counts.
    :return: ``(N,)``.
    """
    hard = target if target.ndim == 1 else target.argmax(dim=1)
    own = functional.one_hot(hard, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).amax(dim=1)
    return others - logits.gather(1, hard[:, None]).squeeze(1)
