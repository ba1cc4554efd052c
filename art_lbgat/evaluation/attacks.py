"""What each named attack runs: a name becomes a plan, a plan makes adversarial examples, and these are verified."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.attacks.from_art import generated
from art_lbgat.attacks.pgd import Ascent, ascend, draw_start
from art_lbgat.attacks.projections import Bounds, ascent_direction, check_scale, clip, unit_uniform
from art_lbgat.checks import check_count, check_kind, check_norm, check_number
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.autoattack import UnitModel, attack_names, auto_attack, needs_gradients
from art_lbgat.evaluation.results import WHITE_BOX, Row, norm_name
from art_lbgat.evaluation.subject import Subject, health_flags, make_subject, require_gradients
from art_lbgat.memory import in_chunks
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

Attack: TypeAlias = str | EvasionAttack | Callable[[PyTorchClassifier], EvasionAttack]
Kind = Literal["natural", "noise", "gradient", "transfer", "quantised", "autoattack", "art", "worst"]

TRANSFER_STEPS = 20  # of the examples that are made on another model, or before a rounding
DRAWS = 10  # of noise: half uniform in the ball, half at its corners (Linf) or on its sphere (L2)
EXPECTED = (
    "'natural', 'pgd-K', 'cw-K', 'kl-K', 'fgsm', 'noise', 'transfer', 'quantised-L' (L >= 2), 'autoattack', 'worst', "
    "an ART EvasionAttack or a function from a classifier to one"
)


@dataclass(frozen=True)
class Threat:
    """The ball, in raw input units, and how gradient attacks search it."""

    eps: float
    norm: float  # math.inf or 2
    eps_step: float | None = None  # None is eps / 10
    restarts: int = 1


def check_threat(eps: Any, norm: Any, eps_step: Any = None, restarts: Any = 1) -> Threat:
    """A threat from what the user passed; ValueError or TypeError names what is wrong."""
    step = None if eps_step is None else check_number(eps_step, "eps_step", exclusive=True)
    return Threat(check_number(eps, "eps"), check_norm(norm), step, check_count(restarts, "restarts"))


@dataclass(frozen=True)
class Plan:
    """One row that is to be computed; the rows of AutoAttack and of ART's attacks get their name when they are run."""

    kind: Kind
    name: str
    steps: int = 0
    objective: str = "ce"
    levels: int = 0  # of the rounding of "quantised"
    source: str = ""  # of "transfer"
    attack: Any = None  # the ART attack, or the function that makes it; the attacks of "autoattack"


def plan_attacks(
    attacks: Attack | Sequence[Attack],
    sources: Iterable[str] = (),
    autoattack: str | Sequence[str] = "standard",
    argument: str = "attacks",
) -> list[Plan]:
    """Plans in the order of the attacks; ``"transfer"`` becomes one for each source. Errors name the argument."""
    single = isinstance(attacks, (str, EvasionAttack)) or callable(attacks)
    if not single and (isinstance(attacks, (bytes, Mapping)) or not isinstance(attacks, Iterable)):
        raise TypeError(f"{argument}: expected {EXPECTED}, or several of them, got {type(attacks).__name__}.")
    given: Any = [attacks] if single else attacks
    plans = []
    for attack in given:
        if isinstance(attack, str) and attack == "transfer":
            if not sources:
                raise ValueError(f"{argument}: 'transfer' expects sources={{name: classifier, ...}}, got none.")
            plans += [Plan("transfer", f"transfer ({name})", TRANSFER_STEPS, source=name) for name in sources]
        else:
            plans.append(_plan(attack, autoattack, argument))
    if not plans:
        raise ValueError(f"{argument}: expected at least one of {EXPECTED}, got none.")
    if {"worst"} <= {plan.kind for plan in plans} <= {"worst", "quantised"}:
        raise ValueError(f"{argument}: 'worst' is the worst case over the other rows; expected at least one, got none.")
    return plans


def _plan(attack: Any, autoattack: str | Sequence[str], argument: str) -> Plan:
    if isinstance(attack, EvasionAttack) or callable(attack):
        return Plan("art", getattr(attack, "__name__", type(attack).__name__), attack=attack)
    if not isinstance(attack, str):
        raise TypeError(f"{argument}: expected {EXPECTED}, got {type(attack).__name__}.")
    if attack in ("natural", "noise", "worst"):
        return Plan(attack, attack)  # type: ignore[arg-type]
    if attack == "autoattack":
        return Plan("autoattack", attack, attack=autoattack)
    if attack == "fgsm":
        return Plan("gradient", attack, steps=1)
    name, _, number = attack.partition("-")
    if re.fullmatch(r"[1-9]\d*", number):
        if name in ("pgd", "cw", "kl"):
            return Plan("gradient", attack, int(number), "ce" if name == "pgd" else name)
        if name == "quantised" and int(number) >= 2:
            return Plan("quantised", attack, TRANSFER_STEPS, levels=int(number))
    raise ValueError(f"{argument}: expected {EXPECTED}, got {attack!r}.")


def check_runnable(subject: Subject, plans: Iterable[Plan], threat: Threat, autoattack: str | Sequence[str]) -> None:
    """Refuse what is known to fail before the first attack starts, which may take hours."""
    view = subject.view
    check_scale(threat.eps, threat.norm, view)
    names, _ = attack_names(autoattack, view.classifier.nb_classes, "autoattack")
    for plan in plans:
        if plan.kind in ("gradient", "quantised") or (plan.kind == "autoattack" and needs_gradients(names)):
            require_gradients(subject.health, view.name)
        if plan.kind == "autoattack":
            UnitModel(view)  # which needs one range for all features
        if plan.kind == "quantised" and view.classifier.clip_values is None:
            raise ValueError(f"{view.name}: {plan.name!r} needs bounded inputs; give it clip_values=(min, max).")
        if isinstance(plan.attack, EvasionAttack):
            _check_art(plan.attack, subject)


class Examples(NamedTuple):
    """Adversarial examples of all samples, before they are verified; samples that were not attacked keep ``x``."""

    x_adv: Tensor
    name: str  # the rest as in Row
    steps: int | None = None
    restarts: int | None = None
    flags: tuple[str, ...] = ()
    seconds: float = 0.0  # spent on them before this row


Sources: TypeAlias = Mapping[str, tuple[TensorView, Examples]]  # models, and PGD-20 examples made on them


def make_sources(sources: Mapping[str, PyTorchClassifier], subjects: Mapping[Any, Subject], threat: Threat) -> Sources:
    """The sources with their examples, made once for all classifiers; ValueError where one does not fit."""
    first = next(iter(subjects.values()))
    found = {}
    for name, classifier in sources.items():
        view = TensorView(classifier, f"sources[{name!r}]", postprocess=True)
        for subject in subjects.values():
            _check_source(view, subject.view)
        found[name] = make_subject(view, first.x, first.y, first.batch_size, first.seed)
        require_gradients(found[name].health, view.name)
    made = {}
    for name, source in found.items():
        start, plan = time.perf_counter(), Plan("gradient", f"transfer ({name})", TRANSFER_STEPS)
        examples = make_examples(source, plan, threat, torch.ones_like(source.right))
        made[name] = source.view, examples._replace(seconds=time.perf_counter() - start)
    return made


def _check_source(source: TensorView, other: TensorView) -> None:
    for name in ("input_shape", "nb_classes", "clip_values"):
        found, expected = getattr(source.classifier, name), getattr(other.classifier, name)
        if name == "clip_values":  # numbers fit arrays of the same range
            pairs = [[bound.cpu() for bound in view.bounds() or ()] for view in (source, other)]
            same = len(pairs[0]) == len(pairs[1]) and all(bool((a == b).all()) for a, b in zip(*pairs, strict=True))
        else:
            same = found == expected
        if not same:
            raise ValueError(f"{source.name}: its {name} is {found}, that of {other.name} is {expected}.")


def run_row(
    subject: Subject, plan: Plan, threat: Threat, sources: Sources | None = None, rows: Tensor | None = None
) -> Row:
    """The row of one attack, of any kind but ``"worst"``; where ``rows`` is given, no other samples count."""
    start, notes = time.perf_counter(), tuple(health_flags(subject.health).values())
    right, bounds, quantised = subject.right, subject.bounds(), plan.kind == "quantised"

    def shown(x: Tensor) -> Tensor:
        """What the classifier sees: rounding to even levels is part of inference, so it is done after verification."""
        if not quantised or bounds is None:
            return x
        (low, high), steps = bounds, plan.levels - 1
        return low + torch.round((x - low) / (high - low) * steps) / steps * (high - low)

    if quantised:
        right, _ = subject.right_on(shown(subject.x), torch.ones_like(right))
    right = right if rows is None else right & rows
    if plan.kind == "natural":
        return Row("natural", "", 0.0, 0, 0, right, subject.seconds, notes)
    made = make_examples(subject, plan, threat, right, sources)
    scale = subject.view.value_range()
    verify(subject.x, made.x_adv, threat.eps, threat.norm, bounds, scale, f"attack {made.name!r}")
    right, nonfinite = subject.right_on(shown(made.x_adv), right)
    broken = (f"logits are NaN or Inf for {nonfinite} adversarial examples, counted as wrong",) if nonfinite else ()
    seconds, flags = made.seconds + time.perf_counter() - start, (*notes, *made.flags, *broken)
    norm = norm_name(threat.norm)
    return Row(made.name, norm, threat.eps, made.steps, made.restarts, right, seconds, flags, defended=quantised)


def make_examples(
    subject: Subject, plan: Plan, threat: Threat, rows: Tensor, sources: Sources | None = None
) -> Examples:
    """The examples of one attack, of any kind but natural and worst, on the samples ``rows``."""
    view = subject.view
    with plain_autograd(view.device), evaluating(view.module), preserved_randomness():
        seed_everything(subject.seed)
        if threat.eps == 0:
            return Examples(subject.x.clone(), plan.name, 0, 0)
        if plan.kind == "noise":
            return Examples(_noise_examples(subject, threat, rows), plan.name, 0, DRAWS)
        if plan.kind == "transfer":
            source, examples = (sources or {})[plan.source]
            return examples._replace(flags=(WHITE_BOX,)) if source.module is view.module else examples
        if plan.kind == "art":
            return _art_examples(subject, plan, threat)
        if plan.kind == "autoattack":
            settings = (threat.eps, threat.norm, plan.attack, subject.batch_size, subject.seed)
            result = auto_attack(view, subject.x.clone(), subject.y, *settings)
            version = "standard" if plan.attack == "standard" and view.classifier.nb_classes >= 10 else "custom"
            return Examples(result.x_adv, f"autoattack ({version})", flags=tuple(result.flags))
        restarts = 1 if plan.name == "fgsm" else threat.restarts
        return Examples(_gradient_examples(subject, plan, threat, restarts, rows), plan.name, plan.steps, restarts)


def _gradient_examples(subject: Subject, plan: Plan, threat: Threat, restarts: int, rows: Tensor) -> Tensor:
    """``x_{t+1} = project(x_t + eps_step * direction(grad loss(M(x_t))))`` from random starts, FGSM from ``x``."""
    fgsm, view, generator = plan.name == "fgsm", subject.view, torch.Generator().manual_seed(subject.seed)
    step = threat.eps if fgsm else threat.eps_step or threat.eps / 10
    ascent = Ascent(threat.norm, threat.eps, step, plan.steps, plan.objective, "none" if fgsm else "uniform")
    x_adv, left = subject.x.clone(), rows.clone()
    for restart in range(restarts):
        unit = draw_start(ascent, subject.x, generator)  # of all, whatever the batch size and however many are left
        if not left.any():
            break
        seed_everything(subject.seed + restart)

        def attacked(chunk: Tensor, unit: Tensor | None = unit) -> Tensor:
            start = None if unit is None else unit[chunk].to(view.device)
            x, y = subject.x[chunk].to(view.device), subject.y[chunk].to(view.device)
            return ascend(ascent, view.logits, x, y, view.bounds(), [start]).cpu()

        x_adv[left] = in_chunks(attacked, left.nonzero().squeeze(1), subject.batch_size)
        if restart + 1 < restarts:
            left, _ = subject.right_on(x_adv, left)
    return x_adv


def _noise_examples(subject: Subject, threat: Threat, rows: Tensor) -> Tensor:
    """``clip(x + eps * u)`` for :data:`DRAWS` random ``u`` of the unit ball; the first that breaks a sample is kept."""
    generator = torch.Generator().manual_seed(subject.seed)
    x_adv, left = subject.x.clone(), rows.clone()
    for draw in range(DRAWS):
        if draw % 2 == 0:
            unit = unit_uniform(subject.x, threat.norm, generator)
        else:  # random signs (Linf) or directions of length 1 (L2)
            unit = ascent_direction(torch.randn(subject.x.shape, generator=generator), threat.norm)
        x_adv[left] = clip(subject.x + threat.eps * unit, subject.bounds())[left]
        left, _ = subject.right_on(x_adv, left)
    return x_adv


def _art_examples(subject: Subject, plan: Plan, threat: Threat) -> Examples:
    attack, classifier = plan.attack, subject.view.classifier
    if not isinstance(attack, EvasionAttack):
        try:
            attack = attack(classifier)
        except Exception as error:
            raise TypeError(
                f"attacks: expected a function from a classifier to an ART EvasionAttack; {plan.name} raised "
                f"{type(error).__name__}: {error}"
            ) from error
    _check_art(attack, subject)
    one_hot = np.eye(classifier.nb_classes, dtype=np.float32)[subject.y.numpy()]
    x_adv = generated(attack, subject.x, one_hot, "attacks")
    given = (getattr(attack, name, None) for name in ("max_iter", "num_random_init"))
    steps, starts = (int(value) if isinstance(value, (int, np.integer)) else None for value in given)
    restarts = None if starts is None else max(1, starts)
    eps, norm = getattr(attack, "eps", None), getattr(attack, "norm", None)
    own = []
    if isinstance(eps, (int, float, np.number)) and not math.isclose(float(eps), threat.eps, rel_tol=1e-6):
        own.append(f"eps {float(eps):g}")
    if norm not in (None, threat.norm, norm_name(threat.norm)):
        own.append(f"norm {norm}")
    flags = (f"the attack searches its own ball ({', '.join(own)}): weaker than the row says",) if own else ()
    return Examples(x_adv, type(attack).__name__, steps, restarts, flags)


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


def verify(x: Tensor, x_adv: Tensor, eps: float, norm: float, bounds: Bounds, scale: float, name: str) -> None:
    """Refuse examples outside the threat model: a number computed from them would mean nothing.

    :param x: Natural inputs, ``(N, ...)``.
    :param x_adv: Their adversarial examples, the same shape.
    :param eps: Radius of the ball, in raw input units.
    :param norm: ``math.inf`` or 2.
    :param bounds: Range of valid inputs, or None.
    :param scale: Range of the inputs; the tolerance is 1e-6 of the largest of it, any natural value and 1 (float32).
    :param name: Name of the attack, for the message.
    :raises ValueError: Wrong shape, NaN or Inf, outside the range, or outside the ball by more than the tolerance.
    """
    for argument, value in (("x", x), ("x_adv", x_adv)):
        if not check_kind(value, argument, Tensor).is_floating_point() or value.ndim < 2:
            raise TypeError(f"{argument}: expected floats (N, ...), got {value.dtype} of shape {tuple(value.shape)}.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x: expected finite values, got NaN or Inf.")
    check_number(eps, "eps")
    check_number(scale, "scale")
    check_norm(norm)
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(isinstance(b, Tensor) for b in bounds)
    if bounds is not None and not pair:
        raise TypeError(f"bounds: expected two tensors (low, high) or None, got {bounds!r}.")
    if x_adv.shape != x.shape:
        raise ValueError(f"{name}: x_adv has shape {tuple(x_adv.shape)}, expected {tuple(x.shape)} as x has.")
    delta = (x_adv.double() - x.double()).flatten(1)
    size = delta.abs().amax(dim=1) if norm == math.inf else delta.norm(dim=1)
    tolerance = 1e-6 * max(1.0, scale, float(x.abs().max()))
    low, high = (-math.inf, math.inf) if bounds is None else bounds
    for bad, problem, detail in (
        (~torch.isfinite(x_adv), "has NaN or Inf", ""),
        ((x_adv < low - tolerance) | (x_adv > high + tolerance), "leaves clip_values", ""),
        ((size > eps + tolerance)[:, None], f"leaves the ball of eps={eps:g}", f" (distance {size.max():g} at most)"),
    ):
        samples = bad.flatten(1).any(dim=1).nonzero()
        if len(samples):
            first = int(samples[0, 0])
            raise ValueError(f"{name}: x_adv {problem} in {len(samples)} samples, first in {first}{detail}.")
