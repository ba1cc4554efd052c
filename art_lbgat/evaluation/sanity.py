"""The field's tests of an evaluation itself: each is a row that can fail, and a failure means gradient masking.

Sources: Athalye et al., arXiv 1802.00420 (section 3.1); Carlini et al., arXiv 1902.06705 (section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks.projections import check_scale, whole_range
from art_lbgat.checks import check_number
from art_lbgat.evaluation.attacks import Sources, Threat, check_threat, make_sources, plan_attacks, run_row
from art_lbgat.evaluation.autoattack import attack_names, unless_unbounded
from art_lbgat.evaluation.results import check_columns
from art_lbgat.evaluation.subject import LARGEST_CHANGE, LARGEST_SHARE, Health, Subject, make_subjects
from art_lbgat.evaluation.suite import UNBOUNDED

if TYPE_CHECKING:
    import pandas

_Check = tuple[str, float, float, str]  # its name, what was observed, the largest value that passes, the detail
_COLUMNS = ["check", "passed", "observed", "expected", "detail"]
_ROUNDING = 1e-9
_WITH_SOURCE = "white-box beats transfer"


def sanity_checks(
    classifier: PyTorchClassifier,
    x: Any,
    y: Any,
    *,
    eps: float,
    norm: float | str = math.inf,
    source: PyTorchClassifier | None = None,
    eps_step: float | None = None,
    tolerance: float = 0.02,
    stronger: float = 0.1,
    autoattack: Sequence[str] | None = None,
    batch_size: int = 250,
    seed: int = 0,
) -> pandas.DataFrame:
    """Whether a robust accuracy of this classifier can be believed; a row per check, ``acc`` being accuracies.

    Of the outputs: *finite logits*, *logits, not probabilities*, *deterministic*, *independent of the batch*,
    *gradients are alive*. Of the attacks:

    * *more steps do not help the defender*: ``acc(PGD-100) <= acc(PGD-10) + tolerance``;
    * *noise does not beat PGD*, *white-box beats transfer* (with a ``source``): the same of ``acc(noise)`` and of
      ``acc(PGD-20 made on source)``;
    * *unbounded attack reaches 0*: ``acc(PGD-50, eps = the whole input range) <= 0.05``;
    * *restarts*, *margin loss*, *apgd-ce* and further attacks of AutoAttack are not much stronger:
      ``acc(PGD-100) - acc(attack) <= stronger``; 0.1 leaves room for the usual gap between losses;
    * *square*, which uses no gradient, is not stronger: ``min over the gradient attacks above of acc - acc(square)
      <= tolerance``.

    Other arguments: see :func:`~art_lbgat.evaluation.evaluate`.

    :param x: Raw natural inputs, ``(n, *input_shape)``; a few hundred are enough.
    :param source: Another classifier of the same inputs and classes.
    :param tolerance: Share of samples by which a weaker attack may win; at least one sample.
    :param stronger: Share of samples by which a strong attack may be better than PGD-100.
    :param autoattack: Attacks of AutoAttack to compare with, each alone; ``()`` for none. None is APGD-CE and Square
        where ``clip_values`` are two numbers, which they need.
    :return: Columns ``check``, ``passed`` (bool), ``observed``, ``expected``, ``detail``; one row if natural logits
        hold NaN or Inf. ``not table.passed.all()`` means that the accuracy is not to be believed.
    :raises ValueError: Bad arguments.
    """
    import pandas

    check_number(eps, "eps", exclusive=True)
    threat = check_threat(eps, norm, eps_step)
    check_number(tolerance, "tolerance")
    check_number(stronger, "stronger")
    if autoattack is None:
        autoattack = unless_unbounded(("apgd-ce", "square"), classifier)
    if not isinstance(autoattack, (str, list, tuple)):
        raise TypeError(f"autoattack: expected names of AutoAttack's attacks, or (), got {autoattack!r}.")
    names = [autoattack] if isinstance(autoattack, str) else list(autoattack)
    (subject,) = make_subjects(classifier, x, y, batch_size, seed, refuse=False).values()
    check_scale(threat.eps, threat.norm, subject.view)
    if names:
        attack_names(names, subject.view.classifier.nb_classes, "autoattack")
    checks = _output_checks(subject.health)
    if subject.health.differentiable and not subject.health.nonfinite:
        sources: Sources = {} if source is None else make_sources({"source": source}, {None: subject}, threat)
        checks += _attack_checks(subject, threat, sources, tolerance, stronger, names)
    table = pandas.DataFrame(checks, columns=["check", "observed", "limit", "detail"]).astype({"observed": float})
    table["passed"] = table["observed"] <= table["limit"] + _ROUNDING
    table["expected"] = table["limit"].map("<= {:.4g}".format)
    return table[_COLUMNS]


def masking_report(checks: pandas.DataFrame) -> str:
    """What a table of :func:`sanity_checks` means, in words.

    :param checks: The table; ValueError for another one.
    :return: One line that sums up, then a line for each check that failed.
    """
    check_columns(checks, "checks", "sanity_checks", _COLUMNS)
    failed = checks[~checks["passed"].astype(bool)]
    missing = "" if _WITH_SOURCE in set(checks["check"]) else " Transfer was not checked: no source was given."
    if not len(failed):
        return f"All {len(checks)} checks passed: no sign of gradient masking.{missing}"
    lines = [f"Gradient masking, or a broken evaluation: {len(failed)} of {len(checks)} checks failed.{missing}"]
    each = (f"- {row.check}: {row.observed:.4g}, expected {row.expected} ({row.detail})" for row in failed.itertuples())
    return "\n".join([*lines, *each])


def _output_checks(health: Health) -> list[_Check]:
    finite = ("finite logits", health.nonfinite, 0, "natural samples with NaN or Inf")
    if health.nonfinite:
        return [finite]
    unusable = health.dead + health.broken if health.differentiable else 1.0
    return [
        finite,
        ("logits, not probabilities", health.probabilities, 0, "1 if every row is non-negative and sums to 1"),
        ("deterministic", health.change, LARGEST_CHANGE, "change between two passes / range of the logits"),
        ("independent of the batch", health.batch_change, LARGEST_CHANGE, "change with half the batch / range"),
        ("gradients are alive", unusable, LARGEST_SHARE, "share of samples with a gradient of 0, NaN or Inf"),
    ]


def _attack_checks(
    subject: Subject, threat: Threat, sources: Sources, tolerance: float, stronger: float, names: list[str]
) -> list[_Check]:
    def accuracy(attack: str, ball: Threat = threat, only: Sequence[str] = ()) -> float:
        (plan,) = plan_attacks(attack, sources, only)
        return float(run_row(subject, plan, ball, sources).right.double().mean())

    tolerance = max(tolerance, 1 / len(subject.x))
    pgd = accuracy("pgd-100")
    reach = whole_range(subject.view, threat.norm)
    if reach == math.inf:  # nothing bounds the inputs: the range of the natural ones, as ``whole_range`` counts it
        reach = float(subject.x.max() - subject.x.min()) * subject.x[0].numel() ** (1 / threat.norm)
    unbounded = accuracy("pgd-50", replace(threat, eps=reach, eps_step=None))
    checks: list[_Check] = [
        ("more steps do not help the defender", pgd, accuracy("pgd-10") + tolerance, "PGD-100 vs PGD-10"),
        ("noise does not beat PGD", pgd, accuracy("noise") + tolerance, "PGD-100 vs the worst of ten draws"),
        ("unbounded attack reaches 0", unbounded, UNBOUNDED, f"PGD-50 at eps={reach:g}"),
    ]
    if sources:
        checks.insert(2, (_WITH_SOURCE, pgd, accuracy("transfer") + tolerance, "PGD-100 vs PGD-20 of the source"))
    found = {
        "restarts": accuracy("pgd-20", replace(threat, restarts=5)),
        "margin loss": accuracy("cw-20"),
        **{name: accuracy("autoattack", only=[name]) for name in names},
    }
    square = found.pop("square", None)
    for name, other in found.items():
        detail = f"PGD-100 {pgd:.1%}, {name} {other:.1%}"
        checks.append((f"{name}: not much stronger than PGD", pgd - other, max(tolerance, stronger), detail))
    if square is not None:
        best = min(pgd, *found.values())
        detail = f"the strongest gradient attack {best:.1%}, square {square:.1%}"
        checks.append(("square: not stronger than gradients", best - square, tolerance, detail))
    return checks
