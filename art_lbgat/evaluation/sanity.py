"""The field's tests of an evaluation itself: each is a row that can fail, and a failure means gradient masking.

Sources: Athalye et al., arXiv 1802.00420 (section 3.1); Carlini et al., arXiv 1902.06705 (section 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks.projections import check_scale
from art_lbgat.checks import check_number
from art_lbgat.evaluation.attacks import Source, Threat, check_threat, make_sources, plan_attacks
from art_lbgat.evaluation.autoattack import attack_names
from art_lbgat.evaluation.results import check_columns
from art_lbgat.evaluation.subject import LARGEST_CHANGE, LARGEST_SHARE, Health, Subject, make_subjects, whole_range
from art_lbgat.evaluation.suite import UNBOUNDED, run_row

if TYPE_CHECKING:
    import pandas

SHORT, LONG, UNBOUNDED_STEPS, RESTARTS = 10, 100, 50, 5
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
    autoattack: Sequence[str] = ("apgd-ce", "square"),
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

    :param classifier: The classifier; judged in eval mode, left as found.
    :param x: Raw natural inputs, ``(n, *input_shape)``; a few hundred are enough.
    :param y: Labels, indices or one-hot.
    :param eps: Radius of the ball, in raw input units, > 0.
    :param norm: ``np.inf``, ``"inf"`` or 2.
    :param source: Another classifier of the same inputs and classes.
    :param eps_step: Length of a gradient step; None is ``eps / 10``.
    :param tolerance: Share of samples by which a weaker attack may win; at least one sample.
    :param stronger: Share of samples by which a strong attack may be better than PGD-100.
    :param autoattack: Attacks of AutoAttack to compare with, each alone; ``()`` for none (they need ``clip_values``).
    :param batch_size: Samples per batch.
    :param seed: Seed of every random draw.
    :return: Columns ``check``, ``passed`` (bool), ``observed``, ``expected``, ``detail``; one row if natural logits
        hold NaN or Inf. ``not table.passed.all()`` means that the accuracy is not to be believed.
    :raises ValueError: Bad arguments.
    """
    import pandas

    check_number(eps, "eps", exclusive=True)
    threat = check_threat(eps, norm, eps_step)
    check_number(tolerance, "tolerance")
    check_number(stronger, "stronger")
    if not isinstance(autoattack, (str, list, tuple)):
        raise TypeError(f"autoattack: expected names of AutoAttack's attacks, or (), got {autoattack!r}.")
    names = [autoattack] if isinstance(autoattack, str) else list(autoattack)
    (subject,) = make_subjects(classifier, x, y, batch_size, seed, refuse=False).values()
    check_scale(threat.eps, threat.norm, subject.view)
    if names:
        attack_names(names, subject.view.classifier.nb_classes, "autoattack")
    checks = _output_checks(subject.health)
    if subject.health.differentiable and not subject.health.nonfinite:
        sources = {} if source is None else make_sources({"source": source}, {None: subject}, threat)
        checks += _attack_checks(subject, threat, sources, tolerance, stronger, names)
    return pandas.DataFrame(checks)


def masking_report(checks: pandas.DataFrame) -> str:
    """What a table of :func:`sanity_checks` means, in words.

    :param checks: The table; ValueError for another one.
    :return: One line that sums up, then a line for each check that failed.
    """
    check_columns(checks, "checks", "sanity_checks", ("check", "passed", "observed", "expected", "detail"))
    failed = checks[~checks["passed"].astype(bool)]
    missing = "" if _WITH_SOURCE in set(checks["check"]) else " Transfer was not checked: no source was given."
    if not len(failed):
        return f"All {len(checks)} checks passed: no sign of gradient masking.{missing}"
    lines = [f"Gradient masking, or a broken evaluation: {len(failed)} of {len(checks)} checks failed.{missing}"]
    each = (f"- {row.check}: {row.observed:.4g}, expected {row.expected} ({row.detail})" for row in failed.itertuples())
    return "\n".join([*lines, *each])


def _check(name: str, observed: float, limit: float, detail: str) -> dict[str, Any]:
    """The row of one check, which passes if ``observed <= limit``."""
    passed, value = bool(observed <= limit + _ROUNDING), float(observed)
    return {"check": name, "passed": passed, "observed": value, "expected": f"<= {limit:.4g}", "detail": detail}


def _output_checks(health: Health) -> list[dict[str, Any]]:
    finite = _check("finite logits", health.nonfinite, 0, "natural samples with NaN or Inf")
    if health.nonfinite:
        return [finite]
    unusable = health.dead + health.broken if health.differentiable else 1.0
    return [
        finite,
        _check("logits, not probabilities", health.probabilities, 0, "1 if every row is non-negative and sums to 1"),
        _check("deterministic", health.change, LARGEST_CHANGE, "change between two passes / range of the logits"),
        _check("independent of the batch", health.batch_change, LARGEST_CHANGE, "change with half the batch / range"),
        _check("gradients are alive", unusable, LARGEST_SHARE, "share of samples with a gradient of 0, NaN or Inf"),
    ]


def _attack_checks(
    subject: Subject, threat: Threat, sources: Mapping[str, Source], tolerance: float, stronger: float, names: list[str]
) -> list[dict[str, Any]]:
    def accuracy(attack: str, ball: Threat = threat, only: Sequence[str] = ()) -> float:
        (plan,) = plan_attacks(attack, sources, only)
        return float(run_row(subject, plan, ball, sources).right.double().mean())

    tolerance = max(tolerance, 1 / len(subject.x))
    pgd = accuracy(f"pgd-{LONG}")
    reach = whole_range(subject.view, threat.norm)
    if reach == math.inf:  # nothing bounds the inputs: the range of the natural ones, as ``whole_range`` counts it
        features = 1.0 if threat.norm == math.inf else math.sqrt(subject.x[0].numel())
        reach = float(subject.x.max() - subject.x.min()) * features
    unbounded = accuracy(f"pgd-{UNBOUNDED_STEPS}", replace(threat, eps=reach, eps_step=None))
    checks = [
        _check("more steps do not help the defender", pgd, accuracy(f"pgd-{SHORT}") + tolerance, "PGD-100 vs PGD-10"),
        _check("noise does not beat PGD", pgd, accuracy("noise") + tolerance, "PGD-100 vs the worst of ten draws"),
    ]
    if sources:
        checks.append(_check(_WITH_SOURCE, pgd, accuracy("transfer") + tolerance, "PGD-100 vs PGD-20 of the source"))
    checks.append(_check("unbounded attack reaches 0", unbounded, UNBOUNDED, f"PGD-{UNBOUNDED_STEPS} at eps={reach:g}"))
    found = {
        "restarts": accuracy(f"pgd-{SHORT * 2}", replace(threat, restarts=RESTARTS)),
        "margin loss": accuracy(f"cw-{SHORT * 2}"),
        **{name: accuracy("autoattack", only=[name]) for name in names},
    }
    square = found.pop("square", None)
    for name, other in found.items():
        detail = f"PGD-100 {pgd:.1%}, {name} {other:.1%}"
        checks.append(_check(f"{name}: not much stronger than PGD", pgd - other, max(tolerance, stronger), detail))
    if square is not None:
        best = min(pgd, *found.values())
        detail = f"the strongest gradient attack {best:.1%}, square {square:.1%}"
        checks.append(_check("square: not stronger than gradients", best - square, tolerance, detail))
    return checks
