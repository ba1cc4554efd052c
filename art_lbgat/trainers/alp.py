"""Adversarial logit pairing (ALP, arXiv 1803.06373)."""

from __future__ import annotations

from collections.abc import Mapping

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from typing_extensions import Unpack

from art_lbgat.checks import check_number
from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import Terms, adversarial_cross_entropy, alp
from art_lbgat.trainers import defaults
from art_lbgat.trainers.base import BaseTrainer


class ALPTrainer(BaseTrainer):
    """``CE(M_r(x_adv), y) + a * MSE(M_r(x_adv), M_r(x))``, ``x_adv`` from PGD on cross-entropy.

    The pairing term of Kannan et al. added to adversarial training, as the LBGAT paper compares it.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's PGD (eps 0.031, 10 steps of 0.007).
    :param alp_weight: ``a >= 0``.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title = "ALP"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        alp_weight: float = 1.0,
        options: RunOptions | None = None,
        **run: Unpack[RunFields],
    ) -> None:
        self.alp_weight = check_number(alp_weight, "alp_weight")
        attack = defaults.pgd(classifier) if attack is None else attack
        super().__init__(classifier, attack, natural="graph" if alp_weight else "value", options=options, run=run)

    def _terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        adversarial = logits["adversarial"]
        return {**adversarial_cross_entropy(adversarial, y), **alp(adversarial, logits["natural"], self.alp_weight)}
