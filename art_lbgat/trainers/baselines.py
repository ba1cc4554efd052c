"""The methods without a guide, in the same loop, so that a comparison differs only in the objective."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.checks import check_number
from art_lbgat.engine.options import RunOptions
from art_lbgat.losses import (
    Terms,
    adversarial_cross_entropy,
    alp,
    boosted_cross_entropy,
    mart,
    natural_cross_entropy,
    trades,
)
from art_lbgat.trainers.base import BaseTrainer

logger = logging.getLogger(__name__)


class NaturalTrainer(BaseTrainer):
    """``CE(M(x), y)`` on natural images: the guide of BGAT, and the baseline that is not robust.

    :param classifier: The classifier to train, with an optimizer.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, attack_kind, natural, takes_loss, on_probabilities = "Natural", "none", "graph", True, True

    def __init__(self, classifier: PyTorchClassifier, *, options: RunOptions | None = None, **run: Any) -> None:
        super().__init__(classifier, None, options=options, run=run)

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """See the class."""
        return natural_cross_entropy(logits["natural"], y, loss=self.cross_entropy)


class MadryTrainer(BaseTrainer):
    """``CE(M_r(x_adv), y)``, ``x_adv`` from PGD on cross-entropy (PGD-AT: Madry et al., arXiv 1706.06083, eq. 2.1).

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's PGD (eps 0.031, 10 steps of 0.007).
    :param ratio: 1: every sample is attacked; None is 1 too, with a warning for attacks of ART, which has 0.5.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, takes_loss, on_probabilities = "PGD-AT", True, True

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        ratio: float | None = None,
        *,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        super().__init__(classifier, attack, options=options, run=run)
        if ratio not in (None, 1):
            raise ValueError(f"ratio: expected 1.0, since every sample is attacked here, got {ratio!r}.")
        of_art = type(self.attack).__module__.startswith("art.")
        self._tell_ratio = ratio is None and of_art and self.attack_kind == "pgd"  # FBF of ART has no ratio

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """See the class."""
        return adversarial_cross_entropy(logits["adversarial"], y, loss=self.cross_entropy)

    def _fit(self, *args: Any) -> None:
        if self._tell_ratio:
            self._tell_ratio = False
            logger.warning("Every sample is attacked, while ART's AdversarialTrainer has ratio=0.5; ratio=1.0 says so.")
        super()._fit(*args)


class FastATTrainer(MadryTrainer):
    """``CE(M_r(x_adv), y)``, ``x_adv`` from one FGSM step of ``1.25 * eps`` after a uniform start (arXiv 2001.03994).

    The cheapest adversarial training, and one that can overfit catastrophically: within an epoch PGD accuracy falls to
    0 while that against the training attack rises. Give ``validation_data``: robust accuracy there is measured with
    PGD-20, its collapse is reported in ``history.collapsed`` and the log, and ends the training with
    ``on_collapse="stop"``; the best epoch is kept either way. (The authors attack in train mode; here the attack is in
    eval mode, as for every trainer.)

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's (eps 8/255, one step of 10/255).
    :param ratio: As in :class:`MadryTrainer`.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, attack_kind = "Fast-AT", "fgsm"

    def _fit(self, stream: Any, processes: Any, nb_epochs: int, validation_data: Any, *args: Any) -> None:
        if validation_data is None:
            logger.warning("Fast-AT without validation_data: catastrophic overfitting would go unnoticed.")
        super()._fit(stream, processes, nb_epochs, validation_data, *args)


class ALPTrainer(BaseTrainer):
    """``CE(M_r(x_adv), y) + a * MSE(M_r(x_adv), M_r(x))``, ``x_adv`` from PGD on cross-entropy (arXiv 1803.06373).

    The pairing term of Kannan et al. added to adversarial training, as the LBGAT paper compares it.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's PGD (eps 0.031, 10 steps of 0.007).
    :param alp_weight: ``a >= 0``.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, natural, takes_loss, weight_name, published_weight = "ALP", "graph", True, "alp_weight", 1.0

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        alp_weight: float = published_weight,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.alp_weight = check_number(alp_weight, "alp_weight")
        super().__init__(classifier, attack, weight=alp_weight, options=options, run=run)

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """See the class."""
        adversarial = logits["adversarial"]
        supervised = adversarial_cross_entropy(adversarial, y, loss=self.cross_entropy)
        return {**supervised, **alp(adversarial, logits["natural"], self.alp_weight)}


class TRADESTrainer(BaseTrainer):
    """``CE(M_r(x), y) + beta * KL(softmax M_r(x) || softmax M_r(x_adv))``, ``x_adv`` from the TRADES attack.

    ``beta`` is the name in ART and in the authors' code; the paper calls it ``1 / lambda`` (arXiv 1901.08573). The
    natural forward is done once (the released code does it twice, which moves the batch-norm statistics once more and
    changes no gradient).

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's attack (KL, eps 0.031, 10 steps of
        0.007). An ART PGD object ascends the classifier's own loss instead of the KL.
    :param beta: Weight of the KL, > 0.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, attack_kind, natural, takes_loss = "TRADES", "trades", "graph", True
    on_probabilities, weight_name, published_weight = True, "beta", 6.0

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        beta: float = published_weight,
        *,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.beta = check_number(beta, "beta", exclusive=True)
        super().__init__(classifier, attack, options=options, run=run)

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """See the class."""
        natural = logits["natural"]
        supervised = natural_cross_entropy(natural, y, loss=self.cross_entropy)
        return {**supervised, **trades(logits["adversarial"], natural, self.beta)}


class MARTTrainer(BaseTrainer):
    """``BCE(M_r(x_adv), y) + a * KL(p(x) || p(x_adv)) * (1 - p_y(x))``, ``x_adv`` from PGD on cross-entropy.

    ``BCE`` is the boosted cross-entropy ``CE - log(1 - max_{k != y} p_k)``. Source: Wang et al., ICLR 2020 (OpenReview
    rklOg6EFwS), eq. 11. Two choices of this package's loop differ from the authors' code: the start is uniform in the
    ball (there 0.001 of Gaussian noise), and ``x_adv`` passes the student before ``x`` (there after), which changes no
    gradient.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's PGD (eps 0.031, 10 steps of 0.007).
    :param mart_weight: ``a > 0``: lambda of the paper (5), ``--beta`` of its code.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, natural, on_probabilities, weight_name, published_weight = "MART", "graph", True, "mart_weight", 5.0

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        mart_weight: float = published_weight,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.mart_weight = check_number(mart_weight, "mart_weight", exclusive=True)
        super().__init__(classifier, attack, options=options, run=run)

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """See the class."""
        adversarial = logits["adversarial"]
        return {**boosted_cross_entropy(adversarial, y), **mart(adversarial, logits["natural"], y, self.mart_weight)}
