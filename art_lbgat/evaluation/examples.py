"""Adversarial examples of every kind of row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.evaluation.autoattack import attack_names, auto_attack, needs_gradients
from art_lbgat.evaluation.gradient import DRAWS, gradient_examples, noise_examples
from art_lbgat.evaluation.health import require_gradients
from art_lbgat.evaluation.plan import Plan, Threat, norm_name
from art_lbgat.evaluation.rows import WHITE_BOX
from art_lbgat.evaluation.subject import Subject
from art_lbgat.evaluation.transfer import Sources
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything


class Examples(NamedTuple):
    """Adversarial examples of all samples, before they are verified.

    :param x_adv: ``(n, ...)``; samples that were not attacked keep ``x``.
    :param name: Name of the row.
    :param steps: As in :class:`Row`.
    :param restarts: As in :class:`Row`.
    :param flags: Warnings of the attack.
    :param seconds: Time that was spent on them in an earlier row.
    """

    x_adv: Tensor
    name: str
    steps: int | None = None
    restarts: int | None = None
    flags: tuple[str, ...] = ()
    seconds: float = 0.0


def check_runnable(subject: Subject, plan: Plan, autoattack: str | Sequence[str]) -> None:
    """Refuse what is known to fail before the first attack starts, which may take hours.

    :param subject: The classifier and its samples.
    :param plan: The attack.
    :param autoattack: ``"standard"`` or a list of attacks.
    :raises ValueError: Unknown attacks of AutoAttack, no ``clip_values`` where they are needed, an ART attack that is
        targeted or bound to another model.
    """
    view = subject.view
    names = attack_names(autoattack, view.classifier.nb_classes, "autoattack")[0]
    if plan.kind in ("gradient", "quantised") or (plan.kind == "autoattack" and needs_gradients(names)):
        require_gradients(subject.health, view.name)
    if plan.kind in ("autoattack", "quantised") and view.classifier.clip_values is None:
        word = "AutoAttack" if plan.kind == "autoattack" else repr(plan.name)
        raise ValueError(f"{view.name}: {word} needs bounded inputs; build the classifier with clip_values=(min, max).")
    if isinstance(plan.attack, EvasionAttack):
        _check_art(plan.attack, subject)


def make_examples(
    subject: Subject, plan: Plan, threat: Threat, sources: Sources, autoattack: str | Sequence[str], rows: Tensor
) -> Examples:
    """The examples of one attack; arguments of :func:`run_row`, ``rows`` being the samples to attack.

    :param subject: The classifier and its samples.
    :param plan: The attack.
    :param threat: The threat model.
    :param sources: What transferred examples are made on.
    :param autoattack: ``"standard"`` or a list of attacks.
    :param rows: Which samples.
    """
    if threat.eps == 0:
        return Examples(subject.x.clone(), plan.name, 0, 0)
    if plan.kind == "noise":
        return Examples(noise_examples(subject, threat, rows), plan.name, 0, DRAWS)
    if plan.kind in ("gradient", "quantised"):
        fgsm = plan.name == "fgsm"
        ascent = threat.fgsm() if fgsm else threat.ascent(plan.steps, plan.objective)
        x_adv = gradient_examples(subject, ascent, threat.restarts, rows)
        return Examples(x_adv, plan.name, plan.steps, 1 if fgsm else threat.restarts)
    if plan.kind == "transfer":
        x_adv, seconds = sources.examples(plan.source)
        white = sources.same_model(plan.source, subject.view)
        notes = (WHITE_BOX,) if white else ()
        return Examples(x_adv, plan.name, plan.steps, threat.restarts, notes, seconds)
    with plain_autograd(subject.view.device), preserved_randomness():
        seed_everything(subject.seed)
        if plan.kind == "autoattack":
            return _autoattack_examples(subject, threat, autoattack)
        return _art(subject, plan, threat)


def _autoattack_examples(subject: Subject, threat: Threat, attacks: str | Sequence[str]) -> Examples:
    view = subject.view
    result = auto_attack(
        view, subject.x.clone(), subject.y, threat.eps, threat.norm, attacks, subject.batch_size, subject.seed
    )
    standard = attacks == "standard" and view.classifier.nb_classes >= 10
    name = "autoattack (standard)" if standard else "autoattack (custom)"
    return Examples(result.x_adv, name, flags=tuple(result.flags))


def _art(subject: Subject, plan: Plan, threat: Threat) -> Examples:
    view = subject.view
    attack = plan.attack if isinstance(plan.attack, EvasionAttack) else _made(plan, view.classifier)
    _check_art(attack, subject)
    one_hot = np.eye(view.classifier.nb_classes, dtype=np.float32)[subject.y.numpy()]
    with evaluating(view.module):
        made = attack.generate(x=subject.x.numpy().copy(), y=one_hot)
    steps, starts = getattr(attack, "max_iter", None), getattr(attack, "num_random_init", None)
    x_adv = torch.from_numpy(np.asarray(made, dtype=np.float32))
    restarts = None if starts is None else max(1, _whole(starts) or 0)
    return Examples(x_adv, type(attack).__name__, _whole(steps), restarts, flags=_other_ball(attack, threat))


def _made(plan: Plan, classifier: PyTorchClassifier) -> Any:
    try:
        return plan.attack(classifier)
    except Exception as error:
        raise TypeError(
            f"attacks: expected a function from a classifier to an ART EvasionAttack; {plan.name} raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _other_ball(attack: Any, threat: Threat) -> tuple[str, ...]:
    """What is to be said of an attack that searches another ball than that of the row."""
    eps, norm = getattr(attack, "eps", None), getattr(attack, "norm", None)
    found = []
    if isinstance(eps, (int, float, np.number)) and not math.isclose(float(eps), threat.eps, rel_tol=1e-6):
        found.append(f"eps {float(eps):g}")
    if norm is not None and str(norm) not in {norm_name(threat.norm), str(threat.norm)} and norm != threat.norm:
        found.append(f"norm {norm}")
    return (f"the attack searches its own ball ({', '.join(found)}): weaker than the row says",) if found else ()


def _check_art(attack: Any, subject: Subject) -> None:
    if not isinstance(attack, EvasionAttack):
        raise TypeError(f"attacks: expected a function that makes an ART EvasionAttack, got {type(attack).__name__}.")
    if attack.targeted:
        raise ValueError(f"attacks: {type(attack).__name__} is targeted; expected targeted=False.")
    # AutoPGD with loss_type wraps the same module in a second estimator: the module decides.
    if getattr(attack.estimator, "model", None) is not subject.view.module:
        raise ValueError(
            f"attacks: {type(attack).__name__} is bound to another model than {subject.view.name}; expected an attack "
            "on it, or, for several classifiers, a function such as lambda c: ProjectedGradientDescent(c, ...)."
        )


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None
