"""The methods without a guide, in the same loop, so that a comparison differs only in the objective."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.checks import check_number
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.step import On, Passes
from art_lbgat.losses import (
    Terms,
    adversarial_cross_entropy,
    alp,
    boosted_cross_entropy,
    mart,
    natural_cross_entropy,
    rectified_labels,
    teacher_kl,
    trades,
)
from art_lbgat.trainers.base import AttackKind, BaseTrainer

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

    title = "Fast-AT"
    attack_kind: ClassVar[AttackKind] = "fgsm"

    def _fit(self, stream: Any, processes: Any, nb_epochs: int, validation_data: Any, *args: Any) -> None:
        if validation_data is None:
            logger.warning("%s without validation_data: catastrophic overfitting would go unnoticed.", self.title)
        super()._fit(stream, processes, nb_epochs, validation_data, *args)


class NFGSMTrainer(FastATTrainer):
    """``CE(M_r(x_adv), y)``, ``x_adv`` from one FGSM step of ``eps`` after noise of ``2 eps``, not projected.

    As cheap as :class:`FastATTrainer`, and less prone to catastrophic overfitting (N-FGSM, de Jorge et al., NeurIPS
    2022, arXiv 2202.01181, who attack in train mode). Its ``x_adv`` leaves the ball of ``eps`` by design; validation
    keeps to it.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's, ``NFGSMAttack`` with eps 8/255.
    :param ratio: As in :class:`MadryTrainer`.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, attack_kind = "N-FGSM", "n-fgsm"


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
        super().__init__(classifier, attack, needs=self.needs(weight=alp_weight), options=options, run=run)

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


class ADRTrainer(BaseTrainer):
    """``CE(M_r(x_adv), l p + (1 - l) y)``, ``p = softmax(M_ema(x) / T)``: guided by the model's own moving average.

    Annealing self-distillation rectification (Wu et al., ICLR 2024, arXiv 2305.12118): ``l`` of each sample is smaller
    where the average is wrong (:func:`~art_lbgat.losses.rectified_labels`), ``l`` and ``T`` follow half a cosine over
    the run, and PGD ascends the cross-entropy with the same labels. ``M_ema`` is the average of ``ema_decay`` (0.995
    where it is None), in eval mode; as with every method it is what is validated and kept, "ADR + WA" of the paper, and
    ``kept_weights["raw"]`` has the last weights before averaging. It starts at the weights after the first step.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is PGD (eps 0.031, 10 steps of 0.007).
    :param interpolation: The first and last ``l``, in [0, 1]; (0, 0) trains with the labels as they are.
    :param temperature: The first and last ``T``, > 0.
    :param rebat_weight: Weight of ``KL(M_ema(x_adv) || M_r(x_adv))`` (ReBAT, Wang et al., NeurIPS 2023, arXiv
        2310.19360; 1 there, with ``interpolation=(0, 0)``); 0 is without it.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title, takes_loss, on_probabilities = "ADR", True, True

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        interpolation: tuple[float, float] = (0.7, 0.95),
        temperature: tuple[float, float] = (2.5, 2.0),
        rebat_weight: float = 0.0,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.interpolation, self.temperature = _pair(interpolation, "interpolation"), _pair(temperature, "temperature")
        if max(self.interpolation) > 1 or min(self.temperature) <= 0:
            got = f"{self.interpolation} and {self.temperature}"
            raise ValueError(f"interpolation, temperature: expected numbers in [0, 1], and > 0, got {got}.")
        self.rebat_weight = check_number(rebat_weight, "rebat_weight")
        kind, passes = self.needs()
        asked: dict[On, Any] = {"x": any(self.interpolation), "x_adv": rebat_weight}
        passes = replace(passes, average=tuple(on for on in asked if asked[on]))
        super().__init__(classifier, attack, needs=(kind, passes), options=options, run=run)
        if self.options.ema_decay is None:
            self.options = replace(self.options, ema_decay=0.995)

    @classmethod
    def needs(cls, *_: Any) -> tuple[AttackKind, Passes]:
        """See :meth:`BaseTrainer.needs`."""
        return cls.attack_kind, Passes(average=("x",))

    def labels(self, logits: Mapping[str, Tensor], y: Tensor, progress: float) -> Tensor:
        """The rectified labels, ``(N, C)``; arguments: see :class:`~art_lbgat.engine.step.Method`."""
        if "average" not in logits:
            return y
        pairs = (self.interpolation, self.temperature)
        return rectified_labels(logits["average"], y, *(_annealed(*pair, progress) for pair in pairs))

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """See the class."""
        adversarial = logits["adversarial"]
        terms = adversarial_cross_entropy(adversarial, y, loss=self.cross_entropy)
        if self.rebat_weight:
            terms |= teacher_kl(adversarial, logits["average_adversarial"], self.rebat_weight)
        return terms


def _annealed(first: float, last: float, progress: float) -> float:
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * progress))


def _pair(values: Any, name: str) -> tuple[float, float]:
    if not isinstance(values, (tuple, list)) or len(values) != 2:
        raise TypeError(f"{name}: expected the first and the last value, got {values!r}.")
    return check_number(values[0], name), check_number(values[1], name)
