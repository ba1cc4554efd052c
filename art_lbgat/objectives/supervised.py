"""Supervised terms: cross-entropy of the robust model with the labels (the baselines)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from art_lbgat.objectives.checks import check_logits, check_targets, check_weight
from art_lbgat.objectives.terms import Term, Terms


def adversarial_cross_entropy(adversarial: Tensor, y: Tensor, weight: float = 1.0) -> Terms:
    """``w * CE(M_r(x_adv), y)``, averaged over the batch (PGD-AT, arXiv 1706.06083, eq. 2.1).

    :param adversarial: ``M_r(x_adv)``, raw logits, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param weight: ``w >= 0``.
    :return: The term ``adversarial_ce``.
    """
    check_targets(y, *check_logits(adversarial=adversarial), of="adversarial")
    check_weight(weight)
    return {"adversarial_ce": Term(functional.cross_entropy(adversarial, y), weight)}


def boosted_cross_entropy(adversarial: Tensor, y: Tensor) -> Terms:
    """``CE(M_r(x_adv), y) - log(1 - max_{k != y} p_k(x_adv))``, batch mean (BCE of MART, OpenReview rklOg6EFwS, eq. 9).

    As in the authors' code, the margin term is ``-log(1.0001 - max_{k != y} p_k + 1e-12)``.

    :param adversarial: ``M_r(x_adv)``, raw logits, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``, of which the largest counts.
    :return: The terms ``adversarial_ce`` and ``adversarial_margin``.
    """
    check_targets(y, *check_logits(adversarial=adversarial), of="adversarial")
    hard = y if y.ndim == 1 else y.argmax(dim=1)
    probabilities = functional.softmax(adversarial, dim=1)
    own = functional.one_hot(hard, adversarial.shape[1]).bool()
    others = probabilities.masked_fill(own, 0.0).amax(dim=1)
    margin = -torch.log(1.0001 - others + 1e-12).mean()
    return {**adversarial_cross_entropy(adversarial, hard), "adversarial_margin": Term(margin)}


def natural_cross_entropy(natural: Tensor, y: Tensor, weight: float = 1.0) -> Terms:
    """``w * CE(M_r(x), y)``, averaged over the batch.

    :param natural: ``M_r(x)``, raw logits, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param weight: ``w >= 0``.
    :return: The term ``natural_ce``.
    """
    check_targets(y, *check_logits(natural=natural), of="natural")
    check_weight(weight)
    return {"natural_ce": Term(functional.cross_entropy(natural, y), weight)}
