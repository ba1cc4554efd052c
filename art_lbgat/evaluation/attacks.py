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

from art_lbgat.attacks.pgd import Ascent, ascend, draw_start
from art_lbgat.attacks.projections import Bounds, ascent_direction, clip, unit_gaussian, unit_uniform
from art_lbgat.checks import check_count, check_kind, check_norm, check_number
from art_lbgat.classifier import JudgedView, TensorView
from art_lbgat.evaluation.autoattack import attack_names, auto_attack, needs_gradients
from art_lbgat.evaluation.results import WHITE_BOX, norm_name
from art_lbgat.evaluation.subject import Subject, make_subject, require_gradients
from art_lbgat.memory import in_chunks
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

Attack: TypeAlias = str | EvasionAttack | Callable[[PyTorchClassifier], EvasionAttack]
Kind = Literal["natural", "noise", "gradient", "transfer", "quantised", "autoattack", "art", "worst"]

TRANSFER_STEPS = 20  # of the examples that are made on another model, or before a rounding
DRAWS = 10  # of noise: half uniform in the ball, half at its corners (Linf) or on its sphere (L2)
TOLERANCE = 1e-6
EXPECTED = (
    "'natural', 'pgd-K', 'cw-K', 'kl-K', 'fgsm', 'noise', 'transfer', 'quantised-L' (L >= 2), 'autoattack', 'worst', "
    "an ART EvasionAttack or a function from a classifier to one"
)
_OBJECTIVES: dict[str, str] = {"pgd": "ce", "cw": "cw", "kl": "kl"}
_GRADIENT = re.compile(r"(pgd|cw|kl)-([1-9]\d*)")
_QUANTISED = re.compile(r"quantised-(\d+)")


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
    given: list[Any] = [attacks] if single else list(attacks)  # type: ignore[arg-type]
    plans = [plan for attack in given for plan in _plan(attack, list(sources), autoattack, argument)]
    if not plans:
        raise ValueError(f"{argument}: expected at least one of {EXPECTED}, got none.")
    if all(plan.kind in ("worst", "quantised") for plan in plans) and any(plan.kind == "worst" for plan in plans):
        raise ValueError(f"{argument}: 'worst' is the worst case over the other rows; expected at least one, got none.")
    return plans


def _plan(attack: Any, sources: list[str], autoattack: str | Sequence[str], argument: str) -> list[Plan]:
    if not isinstance(attack, str):
        if not isinstance(attack, EvasionAttack) and not callable(attack):
            raise TypeError(f"{argument}: expected {EXPECTED}, got {type(attack).__name__}.")
        return [Plan("art", getattr(attack, "__name__", type(attack).__name__), attack=attack)]
    if attack in ("natural", "noise", "worst"):
        return [Plan(attack, attack)]  # type: ignore[arg-type]
    if attack == "autoattack":
        return [Plan("autoattack", attack, attack=autoattack)]
    if attack == "transfer":
        if not sources:
            raise ValueError(f"{argument}: 'transfer' expects sources={{name: classifier, ...}}, got none.")
        return [Plan("transfer", f"transfer ({name})", TRANSFER_STEPS, source=name) for name in sources]
    if attack == "fgsm":
        return [Plan("gradient", attack, steps=1)]
    if gradient := _GRADIENT.fullmatch(attack):
        return [Plan("gradient", attack, steps=int(gradient[2]), objective=_OBJECTIVES[gradient[1]])]
    if (quantised := _QUANTISED.fullmatch(attack)) and int(quantised[1]) >= 2:
        return [Plan("quantised", attack, TRANSFER_STEPS, levels=int(quantised[1]))]
    raise ValueError(f"{argument}: expected {EXPECTED}, got {attack!r}.")


def check_runnable(subject: Subject, plan: Plan) -> None:
    """Refuse what is known to fail before the first attack starts, which may take hours."""
    view = subject.view
    if plan.kind in ("gradient", "quantised") or (
        plan.kind == "autoattack" and needs_gradients(attack_names(plan.attack, view.classifier.nb_classes)[0])
    ):
        require_gradients(subject.health, view.name)
    if plan.kind in ("autoattack", "quantised") and view.classifier.clip_values is None:
        word = "AutoAttack" if plan.kind == "autoattack" else repr(plan.name)
        raise ValueError(f"{view.name}: {word} needs bounded inputs; build the classifier with clip_values=(min, max).")
    if isinstance(plan.attack, EvasionAttack):
        _check_art(plan.attack, subject)


class Source(NamedTuple):
    """A classifier that examples were made on, for black-box transfer to others."""

    view: TensorView
    x_adv: Tensor  # PGD-20 examples of all samples
    seconds: float


def make_sources(
    sources: Mapping[str, PyTorchClassifier], subjects: Mapping[Any, Subject], threat: Threat
) -> dict[str, Source]:
    """The sources with their examples, made once for all judged classifiers; ValueError where one does not fit."""
    first = next(iter(subjects.values()))
    found = {}
    for name, classifier in sources.items():
        view = JudgedView(classifier, f"sources[{name!r}]")
        for subject in subjects.values():
            _check_source(view, subject.view)
        found[name] = make_subject(view, first.x, first.y, first.batch_size, first.seed)
        require_gradients(found[name].health, view.name)
    made = {}
    for name, source in found.items():
        start, plan = time.perf_counter(), Plan("gradient", "pgd", TRANSFER_STEPS)
        x_adv = make_examples(source, plan, threat, torch.ones_like(source.right)).x_adv
        made[name] = Source(source.view, x_adv, time.perf_counter() - start)
    return made


def _check_source(source: TensorView, judged: TensorView) -> None:
    theirs, ours = source.classifier, judged.classifier
    pairs = {
        "input_shape": (tuple(theirs.input_shape), tuple(ours.input_shape)),
        "nb_classes": (theirs.nb_classes, ours.nb_classes),
        "clip_values": (_range(theirs.clip_values), _range(ours.clip_values)),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise ValueError(f"{source.name}: its {name} is {found}, that of {judged.name} is {expected}.")


def _range(clip_values: Any) -> Any:
    if clip_values is None:
        return None
    low, high = (np.unique(np.asarray(value, dtype=np.float64)).tolist() for value in clip_values)
    return (low[0], high[0]) if len(low) == len(high) == 1 else tuple(np.asarray(v).tolist() for v in clip_values)


class Examples(NamedTuple):
    """Adversarial examples of all samples, before they are verified; samples that were not attacked keep ``x``."""

    x_adv: Tensor
    name: str  # the rest as in Row
    steps: int | None = None
    restarts: int | None = None
    flags: tuple[str, ...] = ()
    seconds: float = 0.0  # spent on them before this row


def make_examples(
    subject: Subject, plan: Plan, threat: Threat, rows: Tensor, sources: Mapping[str, Source] | None = None
) -> Examples:
    """The examples of one attack, of any kind but natural and worst, on the samples ``rows``."""
    if threat.eps == 0:
        return Examples(subject.x.clone(), plan.name, 0, 0)
    if plan.kind == "noise":
        return Examples(_noise_examples(subject, threat, rows), plan.name, 0, DRAWS)
    if plan.kind in ("gradient", "quantised"):
        restarts = 1 if plan.name == "fgsm" else threat.restarts
        return Examples(_gradient_examples(subject, plan, threat, restarts, rows), plan.name, plan.steps, restarts)
    if plan.kind == "transfer":
        source = (sources or {})[plan.source]
        flags = (WHITE_BOX,) if source.view.module is subject.view.module else ()
        return Examples(source.x_adv, plan.name, plan.steps, threat.restarts, flags, source.seconds)
    with plain_autograd(subject.view.device), preserved_randomness():
        seed_everything(subject.seed)
        if plan.kind == "art":
            return _art_examples(subject, plan, threat)
        settings = (threat.eps, threat.norm, plan.attack, subject.batch_size, subject.seed)
        result = auto_attack(subject.view, subject.x.clone(), subject.y, *settings)
        version = "standard" if plan.attack == "standard" and subject.view.classifier.nb_classes >= 10 else "custom"
        return Examples(result.x_adv, f"autoattack ({version})", flags=tuple(result.flags))


def _gradient_examples(subject: Subject, plan: Plan, threat: Threat, restarts: int, rows: Tensor) -> Tensor:
    """``x_{t+1} = project(x_t + eps_step * direction(grad loss(M(x_t))))`` from random starts, FGSM from ``x``.

    The starts are drawn for all samples, so that they do not depend on the batch size or on which are attacked.
    """
    fgsm = plan.name == "fgsm"
    ascent = Ascent(
        norm=threat.norm,
        eps=threat.eps,
        eps_step=threat.eps if fgsm else threat.eps_step or threat.eps / 10,
        max_iter=plan.steps,
        objective=plan.objective,
        start="none" if fgsm else "uniform",
    )
    view, generator = subject.view, torch.Generator().manual_seed(subject.seed)
    with plain_autograd(view.device):  # a tensor of an ambient inference mode could not be written into
        x_adv, left = subject.x.clone(), rows.clone()
    for restart in range(restarts):
        unit = draw_start(ascent, subject.x, generator)
        index = left.nonzero().squeeze(1)
        if not len(index):
            break

        def chunk_examples(chunk: Tensor, unit: Tensor | None = unit) -> Tensor:
            start = None if unit is None else unit[chunk].to(view.device)
            x, y = subject.x[chunk].to(view.device), subject.y[chunk].to(view.device)
            return ascend(ascent, view.logits, x, y, view.bounds(), [start]).cpu()

        with plain_autograd(view.device), evaluating(view.module), preserved_randomness():
            seed_everything(subject.seed + restart)
            x_adv[index] = in_chunks(chunk_examples, index, subject.batch_size)
        if restart + 1 < restarts:
            left = subject.judge(x_adv, left)[0]
    return x_adv


def _noise_examples(subject: Subject, threat: Threat, rows: Tensor) -> Tensor:
    """``clip(x + eps * u)`` for :data:`DRAWS` random ``u`` of the unit ball; the first that breaks a sample is kept."""
    generator = torch.Generator().manual_seed(subject.seed)
    x_adv, left = subject.x.clone(), rows.clone()
    for draw in range(DRAWS):
        if draw % 2 == 0:
            unit = unit_uniform(subject.x, threat.norm, generator)
        else:  # random signs (Linf) or directions of length 1 (L2)
            unit = ascent_direction(unit_gaussian(subject.x, generator), threat.norm)
        x_adv[left] = clip(subject.x + threat.eps * unit, subject.bounds())[left]
        left = subject.judge(x_adv, left)[0]
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
    with evaluating(subject.view.module):
        made = attack.generate(x=subject.x.numpy().copy(), y=one_hot)
    steps, starts = getattr(attack, "max_iter", None), getattr(attack, "num_random_init", None)
    x_adv = torch.from_numpy(np.asarray(made, dtype=np.float32))
    restarts = None if starts is None else max(1, _whole(starts) or 0)
    return Examples(x_adv, type(attack).__name__, _whole(steps), restarts, flags=_other_ball(attack, threat))


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


def _other_ball(attack: Any, threat: Threat) -> tuple[str, ...]:
    """What is to be said of an attack that searches another ball than that of the row."""
    eps, norm = getattr(attack, "eps", None), getattr(attack, "norm", None)
    found = []
    if isinstance(eps, (int, float, np.number)) and not math.isclose(float(eps), threat.eps, rel_tol=1e-6):
        found.append(f"eps {float(eps):g}")
    if norm is not None and str(norm) not in {norm_name(threat.norm), str(threat.norm)} and norm != threat.norm:
        found.append(f"norm {norm}")
    return (f"the attack searches its own ball ({', '.join(found)}): weaker than the row says",) if found else ()


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None


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
    tolerance = TOLERANCE * max(1.0, scale, float(x.abs().max()))
    _refuse(~torch.isfinite(x_adv), name, "has NaN or Inf")
    if bounds is not None:
        _refuse((x_adv < bounds[0] - tolerance) | (x_adv > bounds[1] + tolerance), name, "leaves clip_values")
    farthest = f" (distance {float(size.max()):g} at most)"
    _refuse((size > eps + tolerance)[:, None], name, f"leaves the ball of eps={eps:g}", farthest)


def _refuse(bad: Tensor, name: str, problem: str, detail: str = "") -> None:
    samples = bad.flatten(1).any(dim=1).nonzero()
    if len(samples):
        raise ValueError(f"{name}: x_adv {problem} in {len(samples)} samples, first in {int(samples[0, 0])}{detail}.")
