"""Boundary Guided Adversarial Training with a frozen guide (BGAT, arXiv 2011.11164)."""

from __future__ import annotations

from collections.abc import Sequence

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from typing_extensions import Unpack

from art_lbgat.checks import check_flag
from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import Guidance
from art_lbgat.trainers.guided import GuidanceName, GuidedTrainer, RegularizerName


class BGATTrainer(GuidedTrainer):
    """``MSE(M_r(x_adv), M_n(x))`` with a guide ``M_n`` that was trained on natural images and is never changed.

    The robust model sees no label: all supervision reaches it through the guide's logits. Source: arXiv 2011.11164,
    BGAT.

    :param classifier: The classifier to make robust (``M_r``), with an optimizer.
    :param guide: One trained classifier, or several (an ensemble: the mean of their logits), of any architecture, each
        with its own preprocessing. Weights, buffers and modes are left untouched.
    :param attack: An untargeted ART evasion attack on ``classifier``; None is the paper's: PGD on cross-entropy, or the
        TRADES attack with ``regularizer="trades"`` (eps 0.031, 10 steps of 0.007).
    :param guidance: ``"mse"`` (the paper's), ``"mse+ce"``, ``"kd"``, ``"kl"``, or a callable
        ``(adversarial, guide, y) -> Terms``.
    :param regularizer: ``None``, ``"alp"`` or ``"trades"``.
    :param regularizer_weight: Its weight; None is the published one (1 for ALP, 6 for TRADES).
    :param cache_guide: Keep the guide's logits of each image from the first epoch for the later ones, which saves the
        guide's forward pass; only without augmentation, with arrays. Equal up to the last bit of a logit.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: A guide that does not fit the classifier, an unknown name, a bad weight.
    """

    title = "BGAT"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guide: PyTorchClassifier | Sequence[PyTorchClassifier],
        attack: EvasionAttack | None = None,
        *,
        guidance: GuidanceName | Guidance = "mse",
        regularizer: RegularizerName | None = None,
        regularizer_weight: float | None = None,
        cache_guide: bool = False,
        options: RunOptions | None = None,
        **run: Unpack[RunFields],
    ) -> None:
        check_flag(cache_guide, "cache_guide")
        guides = list(guide) if isinstance(guide, (list, tuple)) else [guide]
        if not guides:
            raise ValueError("guide: expected one classifier or several, got an empty list.")
        super().__init__(
            classifier,
            guides,
            attack,
            train_guides=False,
            cache_guide=cache_guide,
            guidance=guidance,
            regularizer=regularizer,
            regularizer_weight=regularizer_weight,
            options=options,
            run=run,
        )
        self.guide = guide
