"""What BGAT and LBGAT have in common: a guidance loss and an optional regularizer on the robust model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.checks import check_choice, check_number
from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import GUIDANCE, REGULARIZERS, Guidance, Terms, check_guidance
from art_lbgat.trainers import defaults
from art_lbgat.trainers.base import BaseTrainer

RegularizerName = Literal["alp", "trades"]
GuidanceName = Literal["mse", "mse+ce", "kd", "kl"]
_PUBLISHED_WEIGHTS = {"alp": 1.0, "trades": 6.0}


class GuidedTrainer(BaseTrainer):
    """``guidance(M_r(x_adv), M_n(x)) + a * regularizer(M_r(x_adv), M_r(x))``.

    :param classifier: The robust model ``M_r``.
    :param guides: The guides ``M_n``; more than one are averaged.
    :param attack: The attack, or None for the paper's: the TRADES attack with the TRADES regularizer, else PGD.
    :param train_guides: Whether the guides learn.
    :param cache_guide: Whether the logits of frozen guides are kept from the first epoch on.
    :param guidance: The guidance loss, by name or as a callable.
    :param regularizer: ``None``, ``"alp"`` or ``"trades"``.
    :param regularizer_weight: ``a >= 0``; None is the published weight (1 for ALP, 6 for TRADES). With 0 the TRADES
        attack is kept and ``M_r(x)`` is still computed, for its batch-norm statistics, without a graph ("LBGAT0").
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises ValueError: An unknown name, a weight without a regularizer.
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guides: Sequence[PyTorchClassifier],
        attack: EvasionAttack | None,
        *,
        train_guides: bool,
        cache_guide: bool = False,
        guidance: GuidanceName | Guidance,
        regularizer: RegularizerName | None,
        regularizer_weight: float | None,
        options: RunOptions | None,
        run: RunFields,
    ) -> None:
        self.guidance = guidance if callable(guidance) else GUIDANCE[check_choice(guidance, "guidance", GUIDANCE)]
        check_choice(regularizer, "regularizer", [None, *REGULARIZERS])
        self.regularizer = regularizer
        if regularizer is None and regularizer_weight is not None:
            raise ValueError(f"regularizer_weight: expected None without a regularizer, got {regularizer_weight!r}.")
        weight = _PUBLISHED_WEIGHTS.get(regularizer or "", 0.0) if regularizer_weight is None else regularizer_weight
        self.regularizer_weight = check_number(weight, "regularizer_weight")
        if attack is None:
            attack = defaults.trades(classifier) if regularizer == "trades" else defaults.pgd(classifier)
        super().__init__(
            classifier,
            attack,
            guides=guides,
            train_guides=train_guides,
            cache_guide=cache_guide,
            natural="none" if regularizer is None else "graph" if self.regularizer_weight else "value",
            options=options,
            run=run,
        )
        check_guidance(self.guidance, classifier.nb_classes, classifier.device)

    def _terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        adversarial = logits["adversarial"]
        terms = self.guidance(adversarial, logits["guide"], y)
        others = self._guide_terms(logits["guide"], y_guide)
        if self.regularizer is not None:
            others |= REGULARIZERS[self.regularizer](adversarial, logits["natural"], self.regularizer_weight)
        if terms.keys() & others.keys():
            raise ValueError(f"guidance: its terms {sorted(terms)} must not be named like {sorted(others)}.")
        return {**terms, **others}

    def _guide_terms(self, guide: Tensor, y_guide: Tensor) -> Terms:
        """Terms on the guide alone; none unless it learns."""
        return {}
