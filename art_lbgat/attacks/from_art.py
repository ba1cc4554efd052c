"""Reads an attack object into the tensor loop, where that gives the same examples as its ``generate``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod, ProjectedGradientDescent
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
    ProjectedGradientDescentPyTorch,
)
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.attacks.pgd import Ascent, TensorAttack
from art_lbgat.checks import check_kind
from art_lbgat.classifier import TensorView

_STANDARDISATION_MODULES = "art.preprocessing.standardisation_mean_std"


def read_attack(attack: EvasionAttack, view: TensorView) -> tuple[Ascent | None, str]:
    """What to run in the tensor loop instead of ``attack.generate``, or why it must be ``generate``.

    A :class:`~art_lbgat.attacks.TensorAttack` is run as its ``ascent()`` says, unless its class changes ``generate`` or
    ``perturb``. Of ART's attacks PGD, BIM and FGSM are read, exact types only (a subclass may change anything): random
    starts are equal in distribution (ART draws them from numpy's global generator), everything else bit for bit in fp32
    on CPU. Where the attack's own ``batch_size`` is below the training batch a logit may differ in its last bit, and in
    L2 with a loss that averages rounding may too (ART divides by the size of its chunk before it normalises).

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
    worker: Any = attack._attack if type(attack) in (ProjectedGradientDescent, BasicIterativeMethod) else attack
    fgsm = type(worker) is FastGradientMethod
    if not view.classifier.all_framework_preprocessing:
        return None, "a preprocessing defence is written in numpy"
    if not fgsm and type(worker) is not ProjectedGradientDescentPyTorch:
        return None, f"{type(attack).__name__} is not an attack that the tensor loop knows"
    for reason, holds in _reasons(attack, worker, view).items():
        if holds:
            return None, reason
    # ART's FGSM steps by eps, its eps_step matters only with minimal=True; PGD returns x itself with max_iter=0
    steps = 1 if fgsm else worker.max_iter
    return Ascent(
        norm=worker.norm,
        eps=float(worker.eps),
        eps_step=float(worker.eps if fgsm else worker.eps_step),
        max_iter=steps,
        objective="estimator",
        start="uniform" if worker.num_random_init and steps else "none",
        rule="art",
    ), ""


def parts_of(attack: EvasionAttack) -> list[EvasionAttack]:
    """An attack and those that it is made of: the worker of ART's PGD, the list of AutoAttack."""
    held = [each for v in vars(attack).values() for each in (v if isinstance(v, (list, tuple)) else [v])]
    return [attack, *(part for each in held if isinstance(each, EvasionAttack) for part in parts_of(each))]


def generated(attack: EvasionAttack, x: Tensor, y: NDArray[Any], name: str = "attack") -> Tensor:
    """What ``attack.generate`` makes of a copy of ``x``, float32 on the CPU; the classifier keeps its optimizer.

    :raises ValueError: If it is not one example for each sample, but a patch with its mask, for instance.
    """
    estimator: Any = attack.estimator
    optimizer = getattr(estimator, "_optimizer", None)
    try:
        made: Any = attack.generate(x=x.cpu().numpy().copy(), y=y)
    finally:
        estimator._optimizer = optimizer  # which AutoAttack with parallel_pool_size takes away
    got = f"a tuple of {len(made)}" if isinstance(made, tuple) else f"shape {np.shape(made)}"
    if isinstance(made, tuple) or np.shape(made) != tuple(x.shape):
        raise ValueError(
            f"{name}: {type(attack).__name__}.generate returned {got} for inputs of shape {tuple(x.shape)}; expected "
            "one adversarial example for each."
        )
    return torch.from_numpy(np.asarray(made, dtype=np.float32))


def _refuse_tensor_attack(attack: TensorAttack, view: TensorView) -> str:
    if attack.estimator is not view.classifier:
        return "it is bound to another object"
    for method in ("generate", "perturb"):
        if getattr(type(attack), method) is not getattr(TensorAttack, method) or method in vars(attack):
            return f"{type(attack).__name__} has a {method} of its own"
    return "random_eps is set" if attack.random_eps else ""


def _reasons(attack: EvasionAttack, worker: Any, view: TensorView) -> dict[str, bool]:
    """Why an attack of ART, or the gradient of a classifier, cannot be followed exactly, and whether it is so."""
    classifier, fgsm = view.classifier, type(worker) is FastGradientMethod
    random = [
        type(operation).__name__
        for operation in view.operations
        if operation.apply_predict and not type(operation).__module__.startswith(_STANDARDISATION_MODULES)
    ]
    return {
        "decay (momentum) is set": not fgsm and worker.decay is not None,
        "random_eps is set": not fgsm and worker.random_eps,
        f"norm {worker.norm} is neither inf nor 2": worker.norm not in (math.inf, "inf", 2),
        "minimal is set": fgsm and worker.minimal,
        "ART computes FGSM in numpy, which is bit-equal for norm inf only": fgsm and worker.norm == 2,
        "it is bound to another object": any(a.estimator is not classifier for a in (attack, worker)),
        "eps is an array": not all(isinstance(value, (int, float)) for value in (worker.eps, worker.eps_step)),
        "it is targeted": worker.targeted,
        "num_random_init > 1 picks among restarts by ART's notion of success": worker.num_random_init > 1,
        "a summary_writer is attached": worker.summary_writer is not None,
        "the model is recurrent": classifier.is_rnn,
        f"the loss {type(classifier.loss).__name__} takes labels in a form of its own": not classifier._reduce_labels,
        "the loss does not reduce to a scalar": getattr(classifier.loss, "reduction", None) not in ("mean", "sum"),
        f"the defence {', '.join(random)} acts at prediction and may be random": bool(random),
    }
