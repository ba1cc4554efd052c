"""Reads an attack object into the tensor loop, where that gives the same examples as its ``generate``."""

from __future__ import annotations

import math
from typing import Any

from art.attacks.attack import EvasionAttack
from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod, ProjectedGradientDescent
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
    ProjectedGradientDescentPyTorch,
)

from art_lbgat.attacks.pgd import Ascent, TensorAttack
from art_lbgat.checks import check_kind
from art_lbgat.classifier import TensorView

_STANDARDISATION_MODULES = "art.preprocessing.standardisation_mean_std"
_LINF = (math.inf, "inf")


def read_attack(attack: EvasionAttack, view: TensorView) -> tuple[Ascent | None, str]:
    """What to run in the tensor loop instead of ``attack.generate``, or why it must be ``generate``.

    A :class:`~art_lbgat.attacks.TensorAttack` is run as its ``ascent()`` says, unless its class changes ``generate`` or
    ``perturb``. Of ART's attacks PGD, BIM and FGSM are read, exact types only (a subclass may change anything), from
    the worker that ART really runs. Random starts are equal in distribution (ART draws them from numpy's global
    generator), everything else bit for bit in fp32 on CPU where the attack's own ``batch_size`` is not below the
    training batch (else a logit may differ in its last bit); in L2 with a loss that averages, where the attack's own
    ``batch_size`` is below the training batch, up to rounding (ART divides by the size of its chunk before it
    normalises).

    :param attack: Any ART evasion attack.
    :param view: The classifier that is being trained.
    :return: The ascent and an empty string, or None and the reason.
    :raises TypeError: If they are no attack and no ``TensorView``.
    """
    check_kind(attack, "attack", EvasionAttack)
    check_kind(view, "view", TensorView)
    if isinstance(attack, TensorAttack):
        reason = _refuse_tensor_attack(attack, view)
        return (None, reason) if reason else (check_kind(attack.ascent(), "ascent()", Ascent), "")
    if not view.classifier.all_framework_preprocessing:
        return None, "a preprocessing defence is written in numpy"
    worker: Any = attack
    if type(attack) in (ProjectedGradientDescent, BasicIterativeMethod):
        worker = attack._attack
    if type(worker) is ProjectedGradientDescentPyTorch:
        reason, eps_step, max_iter = _refuse_pgd(worker), worker.eps_step, worker.max_iter
    elif type(worker) is FastGradientMethod:
        # ART's FGSM steps by eps; its eps_step matters only with minimal=True.
        reason, eps_step, max_iter = _refuse_fgsm(worker), worker.eps, 1
    else:
        return None, f"{type(attack).__name__} is not an attack that the tensor loop knows"
    reason = reason or _refuse_worker(attack, worker, view.classifier) or _refuse_classifier(view)
    if reason:
        return None, reason
    return Ascent(
        norm=worker.norm,
        eps=float(worker.eps),
        eps_step=float(eps_step),
        max_iter=max_iter,
        objective="estimator",
        # With max_iter=0 ART returns x itself, without a random start.
        start="uniform" if worker.num_random_init and max_iter else "none",
        rule="art",
    ), ""


def _refuse_tensor_attack(attack: TensorAttack, view: TensorView) -> str:
    if attack.estimator is not view.classifier:
        return "it is bound to another object"
    for method in ("generate", "perturb"):
        if getattr(type(attack), method) is not getattr(TensorAttack, method) or method in vars(attack):
            return f"{type(attack).__name__} has a {method} of its own"
    return ""


def _refuse_pgd(worker: ProjectedGradientDescentPyTorch) -> str:
    if worker.decay is not None:
        return "decay (momentum) is set"
    if worker.random_eps:
        return "random_eps is set"
    if worker.norm not in (*_LINF, 2):
        return f"norm {worker.norm} is neither inf nor 2"
    return ""


def _refuse_fgsm(worker: FastGradientMethod) -> str:
    if worker.minimal:
        return "minimal is set"
    if worker.norm not in _LINF:
        return "ART computes FGSM in numpy, which is bit-equal for norm inf only"
    return ""


def _refuse_worker(attack: EvasionAttack, worker: Any, classifier: Any) -> str:
    if attack.estimator is not classifier or worker.estimator is not classifier:
        return "it is bound to another object than the classifier"
    if not isinstance(worker.eps, (int, float)) or not isinstance(worker.eps_step, (int, float)):
        return "eps is an array"
    if worker.targeted:
        return "it is targeted"
    if worker.num_random_init > 1:
        return "num_random_init > 1 picks among restarts by ART's notion of success"
    if worker.summary_writer is not None:
        return "a summary_writer is attached"
    return ""


def _refuse_classifier(view: TensorView) -> str:
    """Why a classifier's gradient, as ART takes it, cannot be followed exactly; empty if it can."""
    classifier = view.classifier
    if classifier.is_rnn:
        return "the model is recurrent"
    if not classifier._reduce_labels:
        return f"the loss {type(classifier.loss).__name__} takes labels in a form of its own"
    if getattr(classifier.loss, "reduction", None) not in ("mean", "sum"):
        return "the loss does not reduce to a scalar"
    for operation in view.operations:
        known = type(operation).__module__.startswith(_STANDARDISATION_MODULES)
        if operation.apply_predict and not known:
            return f"the defence {type(operation).__name__} acts at prediction and may be random"
    return ""
