"""What is to be run: names of attacks read into plans, all of them before the first attack starts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks import Ascent
from art_lbgat.checks import check_count, check_norm, check_number

Attack: TypeAlias = str | EvasionAttack | Callable[[PyTorchClassifier], EvasionAttack]
Kind = Literal["natural", "noise", "gradient", "transfer", "quantised", "autoattack", "art", "worst"]

TRANSFER_STEPS = 20  # of the examples that are made on another model, or before a rounding
EXPECTED = (
    "'natural', 'pgd-K', 'cw-K', 'kl-K', 'fgsm', 'noise', 'transfer', 'quantised-L' (L >= 2), 'autoattack', 'worst', "
    "an ART EvasionAttack or a function from a classifier to one"
)
_OBJECTIVES: dict[str, str] = {"pgd": "ce", "cw": "cw", "kl": "kl"}
_GRADIENT = re.compile(r"(pgd|cw|kl)-([1-9]\d*)")
_QUANTISED = re.compile(r"quantised-(\d+)")


@dataclass(frozen=True)
class Threat:
    """The ball, and how gradient attacks search it.

    :param eps: Radius in raw input units, >= 0.
    :param norm: ``math.inf`` or 2.
    :param eps_step: Length of a step, > 0; None is ``eps / 10``.
    :param restarts: Random starts of each gradient attack, >= 1.
    """

    eps: float
    norm: float
    eps_step: float | None = None
    restarts: int = 1

    def ascent(self, steps: int, objective: str) -> Ascent:
        """Projected gradient ascent from a uniform start in the ball.

        :param steps: Number of steps.
        :param objective: What is ascended.
        """
        step = self.eps / 10 if self.eps_step is None else self.eps_step
        return Ascent(norm=self.norm, eps=self.eps, eps_step=step, max_iter=steps, objective=objective)

    def fgsm(self) -> Ascent:
        """One step of length eps on the cross-entropy, from the natural input."""
        return Ascent(norm=self.norm, eps=self.eps, eps_step=self.eps, max_iter=1, start="none")


def check_threat(eps: Any, norm: Any, eps_step: Any = None, restarts: Any = 1) -> Threat:
    """A threat from what the user passed.

    :param eps: Radius in raw input units.
    :param norm: ``np.inf``, ``"inf"`` or 2.
    :param eps_step: Length of a step; None is ``eps / 10``.
    :param restarts: Random starts.
    :raises ValueError: A value outside its range (see :mod:`art_lbgat.checks`).
    :raises TypeError: A value of the wrong type.
    """
    step = None if eps_step is None else check_number(eps_step, "eps_step", exclusive=True)
    return Threat(check_number(eps, "eps"), check_norm(norm), step, check_count(restarts, "restarts"))


@dataclass(frozen=True)
class Plan:
    """One row that is to be computed.

    :param kind: Which function computes it.
    :param name: Its name in the table; the row of AutoAttack and of an ART attack is named when it is run.
    :param steps: Steps of a gradient attack.
    :param objective: What a gradient attack ascends.
    :param levels: Levels of the rounding of ``"quantised"``.
    :param source: The source of ``"transfer"``.
    :param attack: The ART attack, or the function that makes it.
    """

    kind: Kind
    name: str
    steps: int = 0
    objective: str = "ce"
    levels: int = 0
    source: str = ""
    attack: Any = None


def plan_attacks(
    attacks: Attack | Sequence[Attack], sources: Sequence[str] = (), argument: str = "attacks"
) -> list[Plan]:
    """Plans in the order of the attacks; ``"transfer"`` becomes one for each source.

    :param attacks: One attack or several.
    :param sources: Names of the sources of transferred examples.
    :param argument: The name of the argument that ``attacks`` came from, for errors.
    :raises ValueError: No attack, an unknown name, ``"transfer"`` without sources, ``"worst"`` without another attack.
    :raises TypeError: Anything that is neither a name nor an attack.
    """
    single = isinstance(attacks, (str, EvasionAttack)) or callable(attacks)
    if not single and (isinstance(attacks, (bytes, Mapping)) or not isinstance(attacks, Iterable)):
        raise TypeError(f"{argument}: expected {EXPECTED}, or several of them, got {type(attacks).__name__}.")
    given: list[Any] = [attacks] if single else list(attacks)  # type: ignore[arg-type]
    plans = [plan for attack in given for plan in _plan(attack, sources, argument)]
    if not plans:
        raise ValueError(f"{argument}: expected at least one of {EXPECTED}, got none.")
    if all(plan.kind in ("worst", "quantised") for plan in plans) and any(plan.kind == "worst" for plan in plans):
        raise ValueError(f"{argument}: 'worst' is the worst case over the other rows; expected at least one, got none.")
    return plans


def _plan(attack: Any, sources: Sequence[str], argument: str) -> list[Plan]:
    if isinstance(attack, EvasionAttack):
        return [Plan("art", type(attack).__name__, attack=attack)]
    if not isinstance(attack, str):
        if not callable(attack):
            raise TypeError(f"{argument}: expected {EXPECTED}, got {type(attack).__name__}.")
        return [Plan("art", getattr(attack, "__name__", type(attack).__name__), attack=attack)]
    if attack == "transfer":
        if not sources:
            raise ValueError(f"{argument}: 'transfer' expects sources={{name: classifier, ...}}, got none.")
        return [Plan("transfer", f"transfer ({name})", TRANSFER_STEPS, source=name) for name in sources]
    return [_plan_name(attack, argument)]


def _plan_name(name: str, argument: str) -> Plan:
    if name == "fgsm":
        return Plan("gradient", name, steps=1)
    if gradient := _GRADIENT.fullmatch(name):
        return Plan("gradient", name, steps=int(gradient[2]), objective=_OBJECTIVES[gradient[1]])
    if (quantised := _QUANTISED.fullmatch(name)) and int(quantised[1]) >= 2:
        return Plan("quantised", name, TRANSFER_STEPS, levels=int(quantised[1]))
    if name in ("natural", "noise", "autoattack", "worst"):
        return Plan(name, name)  # type: ignore[arg-type]
    raise ValueError(f"{argument}: expected {EXPECTED}, got {name!r}.")


def norm_name(norm: float) -> str:
    """``"inf"`` or ``"2"``, as in the table.

    :param norm: ``math.inf`` or 2.
    """
    return "inf" if norm == math.inf else "2"
