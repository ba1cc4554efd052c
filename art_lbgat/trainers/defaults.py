"""The attack of the papers, for trainers that were given none."""

from __future__ import annotations

from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.classifier import TensorView

EPS, EPS_STEP, MAX_ITER = 0.031, 0.007, 10  # arXiv 2011.11164, inputs in [0, 1]


def pgd(classifier: PyTorchClassifier) -> PGDAttack:
    """PGD on cross-entropy: Linf, eps 0.031, 10 steps of 0.007, each times the range of ``clip_values``.

    :param classifier: The classifier to attack.
    """
    scale = TensorView(classifier).value_range()
    return PGDAttack(classifier, eps=EPS * scale, eps_step=EPS_STEP * scale, max_iter=MAX_ITER)


def trades(classifier: PyTorchClassifier) -> TRADESAttack:
    """The TRADES attack: Linf, eps 0.031, 10 steps of 0.007, each times the range of ``clip_values``.

    :param classifier: The classifier to attack.
    """
    scale = TensorView(classifier).value_range()
    return TRADESAttack(classifier, eps=EPS * scale, eps_step=EPS_STEP * scale, max_iter=MAX_ITER)


def fgsm(classifier: PyTorchClassifier) -> PGDAttack:
    """One step of 1.25 eps from a uniform start: Linf, eps 8/255, times the range of ``clip_values`` (2001.03994).

    :param classifier: The classifier to attack.
    """
    eps = 8 / 255 * TensorView(classifier).value_range()
    return PGDAttack(classifier, eps=eps, eps_step=1.25 * eps, max_iter=1)
