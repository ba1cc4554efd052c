"""PGD adversarial training (PGD-AT, arXiv 1706.06083)."""

from __future__ import annotations

from collections.abc import Mapping

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from typing_extensions import Unpack

from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import Terms, adversarial_cross_entropy
from art_lbgat.trainers import defaults
from art_lbgat.trainers.base import BaseTrainer


class MadryTrainer(BaseTrainer):
    """``CE(M_r(x_adv), y)``, ``x_adv`` from PGD on cross-entropy (Madry et al., eq. 2.1).

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's PGD (eps 0.031, 10 steps of 0.007).
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title = "PGD-AT"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        options: RunOptions | None = None,
        **run: Unpack[RunFields],
    ) -> None:
        attack = defaults.pgd(classifier) if attack is None else attack
        super().__init__(classifier, attack, natural="none", options=options, run=run)

    def _terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        return adversarial_cross_entropy(logits["adversarial"], y)
