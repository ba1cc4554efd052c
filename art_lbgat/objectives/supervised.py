"""Supervised terms: cross-entropy of the robust model with the labels (the baselines)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from art_lbgat.objectives.terms import Term, Terms


def adversarial_cross_entropy(adversarial: Tensor, y: Tensor, weight: float = 1.0) -> Terms:
    """``w * CE(M_r(x_adv), y)``, averaged over the batch (PGD-AT, arXiv 1706.06083, eq. 2.1).

    :param adversarial: ``M_r(x_adv)``, raw logits, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param weight: ``w >= 0``.
    :return: The term ``adversarial_ce``.
    """
    return {"adversarial_ce": Term(functional.cross_entropy(adversarial, y), weight)}


def natural_cross_entropy(natural: Tensor, y: Tensor, weight: float = 1.0) -> Terms:
    """``w * CE(M_r(x), y)``, averaged over the batch.

    :param natural: ``M_r(x)``, raw logits, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param weight: ``w >= 0``.
    :return: The term ``natural_ce``.
    """
    return {"natural_ce": Term(functional.cross_entropy(natural, y), weight)}
