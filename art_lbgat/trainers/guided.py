"""Boundary guided adversarial training, arXiv 2011.11164: with a frozen guide (BGAT), with one that learns (LBGAT)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.checks import check_choice, check_number
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.step import Natural
from art_lbgat.losses import (
    GUIDANCE,
    ON_PROBABILITIES,
    REGULARIZERS,
    EpochLoss,
    Guidance,
    Terms,
    check_guidance,
    guide_cross_entropy,
)
from art_lbgat.trainers.base import AttackKind, BaseTrainer


class GuidedTrainer(BaseTrainer):
    """``guidance(M_r(x_adv), M_n(x)) + a * regularizer(M_r(x_adv), M_r(x))``; see its two subclasses."""

    regularizer_weights: ClassVar[Mapping[str, float]] = {"alp": 1.0, "trades": 6.0, "ikl": 1.0, "gkl": 1.0}

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guides: Sequence[PyTorchClassifier],
        attack: EvasionAttack | None,
        guidance: str | Guidance,
        regularizer: str | None,
        regularizer_weight: float | None,
        options: RunOptions | None,
        run: Mapping[str, Any],
    ) -> None:
        named = None if callable(guidance) else check_choice(guidance, "guidance", GUIDANCE)
        # Copies, of which only those that learn differ from the table's.
        self.guidance: Guidance = copy.deepcopy(GUIDANCE[named]) if named else guidance  # type: ignore[assignment]
        self.regularizer: str | None = check_choice(regularizer, "regularizer", [None, *REGULARIZERS])
        self._regularizer = copy.deepcopy(REGULARIZERS[regularizer]) if regularizer else None
        self.on_probabilities = named in ON_PROBABILITIES and (regularizer is None or regularizer in ON_PROBABILITIES)
        if regularizer is None and regularizer_weight is not None:
            raise ValueError(f"regularizer_weight: expected None without a regularizer, got {regularizer_weight!r}.")
        weight = (
            self.regularizer_weights.get(regularizer or "", 0.0) if regularizer_weight is None else regularizer_weight
        )
        self.regularizer_weight = check_number(weight, "regularizer_weight")
        learning: tuple[Any, Any] = (self.guidance, self._regularizer)
        super().__init__(
            classifier,
            attack,
            guides=guides,
            regularizer=regularizer,
            weight=self.regularizer_weight,
            epoch_losses=[each for each in learning if isinstance(each, EpochLoss)],
            options=options,
            run=run,
        )
        check_guidance(self.guidance, classifier.nb_classes, classifier.device)

    @classmethod
    def needs(cls, regularizer: str | None = None, weight: float | None = None) -> tuple[AttackKind, Natural]:
        """See :meth:`BaseTrainer.needs`; with weight 0 ``M_r(x)`` moves batch-norm statistics only ("LBGAT0").

        :param regularizer: A name, or None; all but ``"alp"`` are divergences, and bring the TRADES attack.
        :param weight: Its weight; None is the published one.
        """
        if regularizer is None:
            return "pgd", "none"
        weight = cls.regularizer_weights[regularizer] if weight is None else weight
        attack: AttackKind = "pgd" if regularizer == "alp" else "trades"
        return attack, "graph" if weight else "value"

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """``guidance(M_r(x_adv), M_n(x), y)``, the terms of the guide, and the regularizer.

        :param logits: ``"adversarial"``, ``"guide"`` and, with a regularizer, ``"natural"``.
        :param y: Labels of the student.
        :param y_guide: Labels of the guide.
        """
        adversarial, guide = logits["adversarial"], logits["guide"]
        terms, others = self.guidance(adversarial, guide, y), self.guide_terms(guide, y_guide)
        if self._regularizer is not None:
            others |= self._regularizer(adversarial, logits["natural"], y=y, weight=self.regularizer_weight)
        if terms.keys() & others.keys():
            raise ValueError(f"guidance: its terms {sorted(terms)} must not be named like {sorted(others)}.")
        return {**terms, **others}

    def guide_terms(self, guide: Tensor, y: Tensor) -> Terms:
        """Terms on the guide alone; none unless it learns.

        :param guide: ``M_n(x)``, ``(N, C)``.
        :param y: Labels.
        """
        return {}


class BGATTrainer(GuidedTrainer):
    """``MSE(M_r(x_adv), M_n(x))`` with a guide ``M_n`` that was trained on natural images and is never changed.

    The robust model sees no label: all supervision reaches it through the guide's logits. Source: arXiv 2011.11164,
    BGAT.

    :param classifier: The classifier to make robust (``M_r``), with an optimizer.
    :param guide: One trained classifier, or several (an ensemble: the mean of their logits), of any architecture, each
        with its own preprocessing. Weights, buffers and modes are left untouched.
    :param attack: An untargeted ART evasion attack on ``classifier``; None is the paper's: PGD on cross-entropy, or the
        TRADES attack with a regularizer other than ALP (eps 0.031, 10 steps of 0.007).
    :param guidance: ``"mse"`` (the paper's), ``"mse+ce"``, ``"kd"``, ``"kl"``, ``"ikl"``, ``"gkl"``, or a callable
        ``(adversarial, guide, y) -> Terms``.
    :param regularizer: ``None``, ``"alp"``, ``"trades"``, ``"ikl"`` or ``"gkl"``.
    :param regularizer_weight: Its weight; None is the published one (6 for TRADES, else 1).
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
        guidance: str | Guidance = "mse",
        regularizer: str | None = None,
        regularizer_weight: float | None = None,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        guides = list(guide) if isinstance(guide, (list, tuple)) else [guide]
        if not guides:
            raise ValueError("guide: expected one classifier or several, got an empty list.")
        super().__init__(classifier, guides, attack, guidance, regularizer, regularizer_weight, options, run)
        self.guide = guide


class LBGATTrainer(GuidedTrainer):
    """``MSE(M_r(x_adv), M_n(x)) + b * CE(M_n(x), y)``, both models trained together.

    The gradient of the MSE flows into both, so that they settle on the most robustness-friendly boundary. Each
    classifier steps its own optimizer (one SGD over both is the same thing). Source: arXiv 2011.11164, LBGAT.
    "LBGAT6" of papers and leaderboards is ``regularizer="trades", regularizer_weight=6``; "LBGAT0" is weight 0, which
    keeps the TRADES attack.

    :param classifier: The classifier to make robust (``M_r``), with an optimizer.
    :param guide: The clean classifier (``M_n``), with an optimizer; fresh or already trained, any architecture.
    :param attack: An untargeted ART evasion attack on ``classifier``; None is the paper's: PGD on cross-entropy, or the
        TRADES attack with a regularizer other than ALP (eps 0.031, 10 steps of 0.007).
    :param guidance: ``"mse"`` (the paper's), ``"mse+ce"``, ``"kd"``, ``"kl"``, ``"ikl"``, ``"gkl"``, or a callable
        ``(adversarial, guide, y) -> Terms``.
    :param guide_ce_weight: ``b >= 0``: the paper's beta (1 there; not the ``--beta`` of the authors' code).
    :param regularizer: ``None``, ``"alp"``, ``"trades"``, ``"ikl"`` or ``"gkl"``.
    :param regularizer_weight: Its weight (the paper's alpha); None is the published one (6 for TRADES, else 1).
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: A guide that does not fit the classifier, an unknown name, a bad weight.
    """

    title = "LBGAT"
    train_guides = True

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guide: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        guidance: str | Guidance = "mse",
        guide_ce_weight: float = 1.0,
        regularizer: str | None = None,
        regularizer_weight: float | None = None,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.guide_ce_weight = check_number(guide_ce_weight, "guide_ce_weight")
        super().__init__(classifier, [guide], attack, guidance, regularizer, regularizer_weight, options, run)
        self.guide = guide

    def get_guide(self) -> PyTorchClassifier:
        """The guide, trained by ``fit`` in place."""
        return self.guide

    def guide_terms(self, guide: Tensor, y: Tensor) -> Terms:
        """``b * CE(M_n(x), y)``.

        :param guide: ``M_n(x)``, ``(N, C)``.
        :param y: Labels.
        """
        return guide_cross_entropy(guide, y, self.guide_ce_weight, self._guides[0].cross_entropy)
