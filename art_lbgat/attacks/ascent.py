"""The description of a projected gradient ascent, and the random numbers that it starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from art_lbgat.attacks import norms
from art_lbgat.attacks.radius import Radius, check_ascent_radius
from art_lbgat.checks import check_choice, check_count, check_norm, check_number

Objective = Literal["ce", "kl", "cw", "estimator"]
OBJECTIVES = ("ce", "kl", "cw", "estimator")


@dataclass(frozen=True)
class Ascent:
    """A projected gradient ascent, described completely.

    :param norm: ``math.inf`` or 2.
    :param eps: Radius of the ball, in raw input units; a float, or one per sample, ``(N, 1, ..., 1)``.
    :param eps_step: Length of a step, likewise.
    :param max_iter: Number of steps (``K``); 0 returns the start.
    :param objective: ``"ce"`` (cross-entropy with the labels), ``"kl"`` (KL to the fixed natural prediction),
        ``"cw"`` (the margin) or ``"estimator"`` (the loss object of the ART classifier, for attacks read from ART).
    :param start: ``"none"``, ``"uniform"`` (in the ball, then clipped to the range) or ``"gaussian"``
        (``x + start_std * N(0, 1)``, neither clipped nor projected, as in the TRADES code).
    :param start_std: Standard deviation of the Gaussian start, in raw input units.
    :param restarts: How many starts; for each sample the point of highest loss is kept.
    :param rule: Rounding order, see :mod:`art_lbgat.attacks.norms`.
    :param early_stop_steps: Stop each sample so many steps after it is misclassified, see
        :mod:`art_lbgat.attacks.early_stop`; None takes ``max_iter`` steps with every sample.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range. Radii that are given per sample are checked by the attacks.
    """

    norm: float
    eps: Radius
    eps_step: Radius
    max_iter: int
    objective: Objective = "ce"
    start: Literal["none", "uniform", "gaussian"] = "uniform"
    start_std: float = 0.0
    restarts: int = 1
    rule: Literal["published", "art"] = "published"
    early_stop_steps: int | None = None

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_ascent_radius(self.eps, "eps")
        check_ascent_radius(self.eps_step, "eps_step")
        check_count(self.max_iter, "max_iter", minimum=0)
        check_choice(self.objective, "objective", OBJECTIVES)
        check_choice(self.start, "start", ("none", "uniform", "gaussian"))
        check_number(self.start_std, "start_std")
        check_count(self.restarts, "restarts")
        check_choice(self.rule, "rule", ("published", "art"))
        if self.early_stop_steps is not None:
            check_count(self.early_stop_steps, "early_stop_steps", minimum=0)

    def scaled(self, factor: float) -> Ascent:
        """The same ascent in a ball of ``factor * eps``, with steps of ``factor * eps_step`` (eps warm-up).

        :param factor: The share of the full radius.
        """
        return self if factor == 1 else replace(self, eps=self.eps * factor, eps_step=self.eps_step * factor)

    def shortened(self, max_iter: int | None) -> Ascent:
        """The same ascent with ``max_iter`` steps; None leaves it as it is.

        :param max_iter: Number of steps, or None.
        """
        return self if max_iter is None else replace(self, max_iter=max_iter)

    def rows(self, rows: slice | Tensor, length: int) -> Ascent:
        """The same ascent for some of ``length`` samples: radii that are given per sample are taken for these.

        :param rows: Which samples, as an index.
        :param length: How many samples there are in all.
        :raises ValueError: If there are not ``length`` of them.
        """
        changed: dict[str, Any] = {}
        for name in ("eps", "eps_step"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                if len(value) != length:
                    raise ValueError(f"{name}: expected one number, or {length}, one per sample, got {len(value)}.")
                changed[name] = value[rows]
        return replace(self, **changed) if changed else self

    def on(self, device: torch.device) -> Ascent:
        """The same ascent, radii that are given per sample on ``device``.

        :param device: The device.
        """
        radii = {"eps": self.eps, "eps_step": self.eps_step}
        changed: dict[str, Any] = {name: r.to(device) for name, r in radii.items() if isinstance(r, Tensor)}
        return replace(self, **changed) if changed else self

    def forwards(self) -> int:
        """Forward passes of one call of :func:`~art_lbgat.attacks.loop.ascend`; with early stopping at most.

        The natural prediction once, one per step, and one per start to choose among several.
        """
        choose = self.restarts if self.restarts > 1 else 0
        return (self.objective == "kl") + self.restarts * self.max_iter + choose

    def backwards(self) -> int:
        """Backward passes to the input of one call of ``ascend``; with early stopping at most."""
        return self.restarts * self.max_iter


def draw_start(ascent: Ascent, x: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
    """The unit random numbers of one start, on the device of ``x``; None where the start is ``x`` itself.

    :param ascent: What is run; its start and norm count.
    :param x: Natural inputs, ``(N, ...)``; only shape, dtype and device count.
    :param generator: A CPU generator; None draws from torch's global one.
    """
    if ascent.start == "none":
        return None
    if ascent.start == "gaussian":
        return norms.unit_gaussian(x, generator).to(x.device)
    return norms.unit_uniform(x, ascent.norm, generator).to(x.device)
