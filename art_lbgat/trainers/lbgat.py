"""Learnable Boundary Guided Adversarial Training (LBGAT, arXiv 2011.11164)."""

from __future__ import annotations

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from typing_extensions import Unpack

from art_lbgat.checks import check_number
from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import Guidance, Terms, guide_cross_entropy
from art_lbgat.trainers.guided import GuidanceName, GuidedTrainer, RegularizerName


class LBGATTrainer(GuidedTrainer):
    """``MSE(M_r(x_adv), M_n(x)) + b * CE(M_n(x), y)``, both models trained together.

    The gradient of the MSE flows into both, so that they settle on the most robustness-friendly boundary. Each
    classifier steps its own optimizer (one SGD over both is the same thing). Source: arXiv 2011.11164, LBGAT.
    "LBGAT6" of papers and leaderboards is ``regularizer="trades", regularizer_weight=6``; "LBGAT0" is weight 0, which
    keeps the TRADES attack.

    :param classifier: The classifier to make robust (``M_r``), with an optimizer.
    :param guide: The clean classifier (``M_n``), with an optimizer; fresh or already trained, any architecture.
    :param attack: An untargeted ART evasion attack on ``classifier``; None is the paper's: PGD on cross-entropy, or the
        TRADES attack with ``regularizer="trades"`` (eps 0.031, 10 steps of 0.007).
    :param guidance: ``"mse"`` (the paper's), ``"mse+ce"``, ``"kd"``, ``"kl"``, or a callable
        ``(adversarial, guide, y) -> Terms``.
    :param guide_ce_weight: ``b >= 0``: the paper's beta (1 there; not the ``--beta`` of the authors' code).
    :param regularizer: ``None``, ``"alp"`` or ``"trades"``.
    :param regularizer_weight: Its weight (the paper's alpha); None is the published one (1 for ALP, 6 for TRADES).
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: A guide that does not fit the classifier, an unknown name, a bad weight.
    """

    title = "LBGAT"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guide: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        guidance: GuidanceName | Guidance = "mse",
        guide_ce_weight: float = 1.0,
        regularizer: RegularizerName | None = None,
        regularizer_weight: float | None = None,
        options: RunOptions | None = None,
        **run: Unpack[RunFields],
    ) -> None:
        self.guide_ce_weight = check_number(guide_ce_weight, "guide_ce_weight")
        super().__init__(
            classifier,
            [guide],
            attack,
            train_guides=True,
            guidance=guidance,
            regularizer=regularizer,
            regularizer_weight=regularizer_weight,
            options=options,
            run=run,
        )
        self.guide = guide

    def get_guide(self) -> PyTorchClassifier:
        """The guide, trained by ``fit`` in place."""
        return self.guide

    def _guide_terms(self, guide: Tensor, y_guide: Tensor) -> Terms:
        return guide_cross_entropy(guide, y_guide, self.guide_ce_weight)
