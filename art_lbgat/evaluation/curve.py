"""Robust accuracy over eps, which must fall to nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks.projections import check_scale
from art_lbgat.checks import check_number
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.examples import check_runnable
from art_lbgat.evaluation.judge import run_row
from art_lbgat.evaluation.plan import Plan, check_threat, plan_attacks
from art_lbgat.evaluation.rows import Row, as_table
from art_lbgat.evaluation.subject import Subject, make_subjects
from art_lbgat.evaluation.transfer import Sources

if TYPE_CHECKING:
    import pandas

UNBOUNDED = 0.05  # accuracy that may be left where any input is allowed; 0 in truth, but attacks are not perfect


def robustness_curve(
    classifier: PyTorchClassifier | Mapping[str, PyTorchClassifier],
    x: Any,
    y: Any,
    eps: Sequence[float],
    *,
    norm: float | str = math.inf,
    attack: str = "pgd-20",
    eps_step: float | None = None,
    restarts: int = 1,
    autoattack: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
) -> pandas.DataFrame:
    """Accuracy under one attack in growing balls; a row per classifier and eps.

    ``robust(eps_i) = robust(eps_{i-1}) and right under the attack in the ball of eps_i``: a sample that was broken in a
    smaller ball is broken in every larger one, which contains it, so the curve never rises and later points are
    attacked only where it is needed. With a single eps it is the row of :func:`~art_lbgat.evaluation.evaluate`.

    From half the input range on (Linf; in L2 times the square root of the number of features) every image can be
    turned into the middle grey one, which has one class: accuracy cannot be above the share of the most frequent label.
    From the whole range on it must be near 0. A curve that stays above is flagged.

    :param classifier: A classifier, or a mapping from names to classifiers.
    :param x: Raw natural inputs, ``(n, *input_shape)``.
    :param y: Labels, indices or one-hot.
    :param eps: Radii in raw input units, >= 0, all different; taken in rising order.
    :param norm: ``np.inf``, ``"inf"`` or 2.
    :param attack: ``"pgd-K"``, ``"cw-K"``, ``"kl-K"``, ``"fgsm"``, ``"noise"`` or ``"autoattack"``.
    :param eps_step: Length of a gradient step at every eps; None is a tenth of each.
    :param restarts: Random starts at each eps.
    :param autoattack: What ``"autoattack"`` runs.
    :param batch_size: Samples per batch.
    :param seed: Seed of every random start.
    :return: The columns of :func:`~art_lbgat.evaluation.evaluate`.
    :raises ValueError: Bad arguments, natural logits with NaN or Inf, or an ``x_adv`` that leaves the threat model.
    """
    radii = _check_radii(eps)
    threat = check_threat(radii[-1], norm, eps_step, restarts)
    if not isinstance(attack, str):
        raise TypeError(f"attack: expected the name of an attack, got {type(attack).__name__}.")
    (plan,) = plan_attacks(attack, ["source"], "attack")
    if plan.kind not in ("gradient", "noise", "autoattack"):
        raise ValueError(
            f"attack: expected 'pgd-K', 'cw-K', 'kl-K', 'fgsm', 'noise' or 'autoattack', which grow with eps; got "
            f"{attack!r}."
        )
    subjects = make_subjects(classifier, x, y, batch_size, seed)
    for subject in subjects.values():
        check_scale(radii[-1], threat.norm, subject.view)
        check_runnable(subject, plan, autoattack)
    none = Sources(None, subjects, threat)
    curves: dict[str | None, list[Row]] = {}
    for name, subject in subjects.items():
        curves[name], rows = [], subject.right
        for radius in radii:
            row = run_row(subject, plan, replace(threat, eps=radius), none, autoattack, rows)
            curves[name].append(_flagged(row, subject, plan))
            rows = row.right
    return as_table(curves)


def whole_range(view: TensorView, norm: float) -> float:
    """The largest distance between two inputs in ``clip_values``, in raw units; infinite without ``clip_values``.

    :param view: The classifier.
    :param norm: ``math.inf`` or 2.
    """
    if view.classifier.clip_values is None:
        return math.inf
    features = math.prod(view.classifier.input_shape)
    return view.value_range() * (1.0 if norm == math.inf else math.sqrt(features))


def _flagged(row: Row, subject: Subject, plan: Plan) -> Row:
    reach = whole_range(subject.view, math.inf if row.norm == "inf" else 2.0)
    if row.eps < reach / 2 or plan.kind == "noise":
        return row
    share = float(torch.bincount(subject.y).max()) / len(subject.y)
    limit = min(share, UNBOUNDED) if row.eps >= reach * (1 - 1e-6) else share
    accuracy = float(row.right.double().mean())
    if accuracy <= limit:
        return row
    note = f"gradient masking: {accuracy:.0%} right at eps={row.eps:g}, where at most {limit:.0%} can be"
    return replace(row, flags=(*row.flags, note))


def _check_radii(eps: Any) -> list[float]:
    if not hasattr(eps, "__iter__") or isinstance(eps, str):
        raise TypeError(f"eps: expected a sequence of radii, got {eps!r}.")
    radii = sorted(check_number(e.item() if getattr(e, "ndim", None) == 0 else e, "eps") for e in eps)
    if not radii or len(set(radii)) != len(radii):
        raise ValueError(f"eps: expected at least one radius, all different, got {radii}.")
    return radii
