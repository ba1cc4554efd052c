"""Several attacks on one or several classifiers, and one attack in growing balls, as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks.projections import whole_range
from art_lbgat.checks import as_array, check_number
from art_lbgat.evaluation.attacks import (
    Attack,
    Threat,
    check_runnable,
    check_threat,
    make_sources,
    plan_attacks,
    run_row,
)
from art_lbgat.evaluation.autoattack import unless_unbounded
from art_lbgat.evaluation.results import Row, as_table, norm_name, worst_row
from art_lbgat.evaluation.subject import Classifiers, Subject, make_subjects

if TYPE_CHECKING:
    import pandas

# Of arXiv 2011.11164, run at eps=0.031 and eps_step=0.003 with two sources; the paper does not say to how many levels
# it rounds, 8 (3 bits) are those of arXiv 1711.00117.
PAPER_SUITE = ("natural", "fgsm", "pgd-20", "pgd-1000", "cw-20", "cw-1000", "transfer", "quantised-8", "autoattack",
               "worst")  # fmt: skip
DEFAULT = ("natural", "pgd-20", "autoattack")
UNBOUNDED = 0.05  # accuracy that may be left where any input is allowed; 0 in truth, but attacks are not perfect


def evaluate(
    classifier: PyTorchClassifier | Mapping[str, PyTorchClassifier],
    x: Any,
    y: Any,
    *,
    eps: float,
    norm: float | str = math.inf,
    attacks: Attack | Sequence[Attack] | None = None,
    eps_step: float | None = None,
    restarts: int = 1,
    sources: Mapping[str, PyTorchClassifier] | None = None,
    autoattack: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
) -> pandas.DataFrame:
    """Accuracy of one or several classifiers under several attacks; a row per classifier and attack.

    A sample counts under an attack if it is classified as labelled naturally and under that attack; every ``x_adv`` is
    verified first. Models are evaluated in eval mode; modes and global generators are unchanged afterwards.

    The attacks, by name (``K`` steps, ``L`` levels):

    * ``"natural"``; ``"noise"``: the worst of ten random draws in the ball; ``"fgsm"``: one gradient step of ``eps``;
    * ``"pgd-K"``, ``"cw-K"``, ``"kl-K"``: projected gradient ascent from uniform starts on the cross-entropy, on the
      margin of Carlini and Wagner, on the KL to the natural prediction;
    * ``"transfer"``: PGD-20 examples made on each of ``sources``, a row each;
    * ``"quantised-L"``: every image is rounded to ``L`` even levels of ``clip_values`` before the classifier sees it,
      the PGD-20 examples (made without the rounding) and the natural images alike;
    * ``"autoattack"``; ``"worst"``: the worst case per sample over the other rows, quantised ones left out.

    :param classifier: A classifier, or a mapping from names to classifiers.
    :param x: Raw natural inputs, ``(n, *input_shape)``.
    :param y: Labels, indices or one-hot.
    :param eps: Radius of the ball, in raw input units.
    :param norm: ``np.inf``, ``"inf"`` or 2.
    :param attacks: None is ``"natural"``, ``"pgd-20"`` and, where ``clip_values`` are two numbers, ``"autoattack"``.
        Names as above, untargeted ART attacks bound to the classifier, functions from a classifier to one.
    :param eps_step: Length of a gradient step, > 0; None is ``eps / 10``.
    :param restarts: Random starts of PGD, also for ``"transfer"`` and ``"quantised-L"``; the worst per sample is kept.
    :param sources: Names and classifiers of ``"transfer"``, of the same inputs and classes.
    :param autoattack: ``"standard"`` or a list of its attacks (custom).
    :param batch_size: Samples per batch.
    :param seed: Seed of every random start.
    :return: Columns ``model`` (with a mapping), ``attack``, ``norm``, ``eps``, ``steps`` and ``restarts`` (NA where
        there is no such number), ``n``, ``accuracy`` in [0, 1] with the 95 % Wilson interval ``low`` to ``high``,
        ``seconds``, ``flags`` (why the number may be too high).
    :raises ValueError: Bad arguments, natural logits with NaN or Inf, or an ``x_adv`` that leaves the threat model.
    """
    threat = check_threat(eps, norm, eps_step, restarts)
    attacks = unless_unbounded(DEFAULT, classifier) if attacks is None else attacks
    return as_table(run_suite(classifier, x, y, threat, attacks, sources, autoattack, batch_size, seed)[1])


def run_suite(
    classifier: Classifiers,
    x: Any,
    y: Any,
    threat: Threat,
    attacks: Attack | Sequence[Attack],
    sources: Mapping[str, PyTorchClassifier] | None = None,
    autoattack: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
) -> tuple[dict[str | None, Subject], dict[str | None, list[Row]]]:
    """:func:`evaluate` with a mask per row: the evaluated classifiers and their rows, by name."""
    if sources is not None and not isinstance(sources, Mapping):
        raise TypeError(f"sources: expected a mapping from names to classifiers, got {type(sources).__name__}.")
    plans = plan_attacks(attacks, sources or (), autoattack)
    subjects = make_subjects(classifier, x, y, batch_size, seed)
    for subject in subjects.values():
        check_runnable(subject, plans, threat, autoattack)
    transferred = any(plan.kind == "transfer" for plan in plans)
    made = make_sources(sources, subjects, threat) if sources is not None and transferred else {}
    rows = {}
    for name, subject in subjects.items():
        found = [None if plan.kind == "worst" else run_row(subject, plan, threat, made) for plan in plans]
        others = [row for row in found if row is not None]
        rows[name] = [row or worst_row(others, norm_name(threat.norm), threat.eps) for row in found]
    return subjects, rows


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
    smaller ball is not attacked again. From half the input range on every image can be turned into the middle grey one,
    so accuracy cannot be above the share of the most frequent label, and from the whole range on it must be near 0: a
    curve that stays above is flagged.

    Other arguments: see :func:`evaluate`.

    :param eps: Radii in raw input units, >= 0, all different; taken in rising order.
    :param attack: ``"pgd-K"``, ``"cw-K"``, ``"kl-K"``, ``"fgsm"``, ``"noise"`` or ``"autoattack"``.
    :param eps_step: Length of a gradient step at every eps; None is a tenth of each.
    :param restarts: Random starts at each eps.
    :return: The columns of :func:`~art_lbgat.evaluation.evaluate`, and its errors.
    """
    given = as_array(eps, "eps")
    if given.ndim != 1:
        raise TypeError(f"eps: expected a sequence of radii, got {eps!r}.")
    radii = sorted(check_number(radius, "eps") for radius in given.tolist())
    if not radii or len(set(radii)) != len(radii):
        raise ValueError(f"eps: expected at least one radius, all different, got {radii}.")
    threat = check_threat(radii[-1], norm, eps_step, restarts)
    if not isinstance(attack, str):
        raise TypeError(f"attack: expected the name of an attack, got {type(attack).__name__}.")
    (plan,) = plan_attacks(attack, ["source"], autoattack, "attack")
    if plan.kind not in ("gradient", "noise", "autoattack"):
        raise ValueError(f"attack: expected 'pgd-K', 'cw-K', 'kl-K', 'fgsm', 'noise' or 'autoattack', got {attack!r}.")
    subjects = make_subjects(classifier, x, y, batch_size, seed)
    curves: dict[str | None, list[Row]] = {name: [] for name in subjects}
    for subject in subjects.values():
        check_runnable(subject, [plan], threat, autoattack)
    for name, subject in subjects.items():
        rows = subject.right
        for radius in radii:
            row = run_row(subject, plan, replace(threat, eps=radius), rows=rows)
            curves[name].append(row if plan.kind == "noise" else _flagged(row, subject, threat.norm))
            rows = row.right
    return as_table(curves)


def _flagged(row: Row, subject: Subject, norm: float) -> Row:
    """The row, with a flag where its accuracy is higher than can be in so large a ball."""
    reach, accuracy = whole_range(subject.view, norm), float(row.right.double().mean())
    limit = float(torch.bincount(subject.y).max()) / len(subject.y)
    if row.eps >= reach * (1 - 1e-6):
        limit = min(limit, UNBOUNDED)
    if row.eps < reach / 2 or accuracy <= limit:
        return row
    note = f"gradient masking: {accuracy:.0%} right at eps={row.eps:g}, where at most {limit:.0%} can be"
    return replace(row, flags=(*row.flags, note))
