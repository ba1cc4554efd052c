"""Misclassification Aware adveRsarial Training (MART, OpenReview rklOg6EFwS)."""

from __future__ import annotations

from collections.abc import Mapping

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from typing_extensions import Unpack

from art_lbgat.checks import check_number
from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import Terms, boosted_cross_entropy, mart
from art_lbgat.trainers import defaults
from art_lbgat.trainers.base import BaseTrainer


class MARTTrainer(BaseTrainer):
    """``BCE(M_r(x_adv), y) + a * KL(p(x) || p(x_adv)) * (1 - p_y(x))``, ``x_adv`` from PGD on cross-entropy.

    ``BCE`` is the boosted cross-entropy ``CE - log(1 - max_{k != y} p_k)``. Source: Wang et al., ICLR 2020, eq. 11.
    Two choices of this package's loop differ from the authors' code: the start is uniform in the ball (there 0.001 of
    Gaussian noise), and ``x_adv`` passes the student before ``x`` (there after), which changes no gradient.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's PGD (eps 0.031, 10 steps of 0.007).
    :param mart_weight: ``a > 0``: lambda of the paper (5), ``--beta`` of its code.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title = "MART"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        mart_weight: float = 5.0,
        options: RunOptions | None = None,
        **run: Unpack[RunFields],
    ) -> None:
        self.mart_weight = check_number(mart_weight, "mart_weight", exclusive=True)
        attack = defaults.pgd(classifier) if attack is None else attack
        super().__init__(classifier, attack, natural="graph", options=options, run=run)

    def _terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        adversarial = logits["adversarial"]
        return {**boosted_cross_entropy(adversarial, y), **mart(adversarial, logits["natural"], y, self.mart_weight)}
