"""Regularizers: how far the robust model's own answers on ``x_adv`` and ``x`` may lie apart.

Notation: ``M_r(x_adv)`` is ``adversarial``, ``M_r(x)`` is ``natural``; both are raw logits of shape ``(N, C)``.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from art_lbgat.objectives.checks import check_logits, check_targets, check_weight
from art_lbgat.objectives.terms import Term, Terms


class Regularizer(Protocol):
    """What a regularizer must look like: ``(adversarial, natural, weight) -> Terms``."""

    def __call__(self, adversarial: Tensor, natural: Tensor, weight: float, /) -> Terms:
        """Return the named terms for logits ``(N, C)`` and the weight that the trainer was given."""


def alp(adversarial: Tensor, natural: Tensor, weight: float = 1.0) -> Terms:
    """``a * MSE(M_r(x_adv), M_r(x))``: adversarial logit pairing, mean over batch and classes (arXiv 1803.06373).

    :param adversarial: ``M_r(x_adv)``, shape ``(N, C)``.
    :param natural: ``M_r(x)``, shape ``(N, C)``; the gradient flows through both.
    :param weight: ``a >= 0``.
    :return: The term ``alp``.
    """
    check_logits(adversarial=adversarial, natural=natural)
    check_weight(weight)
    return {"alp": Term(functional.mse_loss(adversarial, natural), weight)}


def trades(adversarial: Tensor, natural: Tensor, weight: float = 6.0) -> Terms:
    """``a * KL(softmax M_r(x) || softmax M_r(x_adv))``, batch mean (arXiv 1901.08573, eq. 5, a = 1/lambda).

    :param adversarial: ``M_r(x_adv)``, shape ``(N, C)``.
    :param natural: ``M_r(x)``, shape ``(N, C)``; the gradient flows through both.
    :param weight: ``a >= 0``.
    :return: The term ``trades_kl``.
    """
    check_logits(adversarial=adversarial, natural=natural)
    check_weight(weight)
    divergence = functional.kl_div(
        functional.log_softmax(adversarial, dim=1), functional.softmax(natural, dim=1), reduction="batchmean"
    )
    return {"trades_kl": Term(divergence, weight)}


def mart(adversarial: Tensor, natural: Tensor, y: Tensor, weight: float = 5.0) -> Terms:
    """``a * mean(KL(p(x) || p(x_adv)) * (1 - p_y(x)))``: weighted by how unsure the model is (MART, OpenReview
    rklOg6EFwS, eq. 11), with the small constants of the authors' code.

    :param adversarial: ``M_r(x_adv)``, shape ``(N, C)``.
    :param natural: ``M_r(x)``, shape ``(N, C)``; the gradient flows through both, and through the weights.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``, of which the largest counts.
    :param weight: ``a >= 0``: lambda of the paper, ``--beta`` of its code.
    :return: The term ``mart_kl``.
    """
    check_targets(y, *check_logits(adversarial=adversarial, natural=natural), of="adversarial")
    check_weight(weight)
    hard = y if y.ndim == 1 else y.argmax(dim=1)
    p_adversarial, p_natural = functional.softmax(adversarial, dim=1), functional.softmax(natural, dim=1)
    # By log_softmax, not the logarithm of p_natural: where a probability is 0 in fp32, its gradient would be NaN.
    difference = functional.log_softmax(natural, dim=1) - torch.log(p_adversarial + 1e-12)
    divergence = (p_natural * difference).sum(dim=1)
    unsure = 1.0000001 - p_natural.gather(1, hard[:, None]).squeeze(1)
    return {"mart_kl": Term((divergence * unsure).mean(), weight)}


REGULARIZERS: dict[str, Regularizer] = {"alp": alp, "trades": trades}
