"""TRADES (arXiv 1901.08573)."""

from __future__ import annotations

from collections.abc import Mapping

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from typing_extensions import Unpack

from art_lbgat.checks import check_number
from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import Terms, natural_cross_entropy, trades
from art_lbgat.trainers import defaults
from art_lbgat.trainers.base import BaseTrainer


class TRADESTrainer(BaseTrainer):
    """``CE(M_r(x), y) + beta * KL(softmax M_r(x) || softmax M_r(x_adv))``, ``x_adv`` from the TRADES attack.

    ``beta`` is the name in ART and in the authors' code; the paper calls it ``1 / lambda``. The natural forward is done
    once (the released code does it twice, which moves the batch-norm statistics once more and changes no gradient).

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's attack (KL, eps 0.031, 10 steps of
        0.007). An ART PGD object ascends the classifier's own loss instead of the KL.
    :param beta: Weight of the KL, > 0.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title = "TRADES"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        beta: float = 6.0,
        options: RunOptions | None = None,
        **run: Unpack[RunFields],
    ) -> None:
        self.beta = check_number(beta, "beta", exclusive=True)
        attack = defaults.trades(classifier) if attack is None else attack
        super().__init__(classifier, attack, natural="graph", options=options, run=run)

    def _terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        natural = logits["natural"]
        return {**natural_cross_entropy(natural, y), **trades(logits["adversarial"], natural, self.beta)}
