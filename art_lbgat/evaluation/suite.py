"""Several attacks on one or several classifiers, as one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks.projections import check_scale
from art_lbgat.evaluation.examples import check_runnable
from art_lbgat.evaluation.judge import run_row
from art_lbgat.evaluation.plan import Attack, Plan, Threat, check_threat, plan_attacks
from art_lbgat.evaluation.rows import Row, as_table, worst_row
from art_lbgat.evaluation.subject import Subject, make_subjects
from art_lbgat.evaluation.transfer import Sources, check_sources

if TYPE_CHECKING:
    import pandas

# Of arXiv 2011.11164, run at eps=0.031 and eps_step=0.003 with two sources; the paper does not say to how many levels
# it rounds, 8 (3 bits) are those of arXiv 1711.00117.
PAPER_SUITE = (
    "natural",
    "fgsm",
    "pgd-20",
    "pgd-1000",
    "cw-20",
    "cw-1000",
    "transfer",
    "quantised-8",
    "autoattack",
    "worst",
)


def evaluate(
    classifier: PyTorchClassifier | Mapping[str, PyTorchClassifier],
    x: Any,
    y: Any,
    *,
    eps: float,
    norm: float | str = math.inf,
    attacks: Attack | Sequence[Attack] = ("natural", "pgd-20", "autoattack"),
    eps_step: float | None = None,
    restarts: int = 1,
    sources: Mapping[str, PyTorchClassifier] | None = None,
    autoattack: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
) -> pandas.DataFrame:
    """Accuracy of one or several classifiers under several attacks; a row per classifier and attack.

    A sample counts under an attack if it is classified as labelled naturally and under that attack. Models are judged
    in eval mode, whatever mode they are in; modes and global generators are left as found. Every ``x_adv`` is verified
    (inside the ball to 1e-6 of the input range, inside ``clip_values``, finite) before it counts.

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
    :param attacks: Names as above, any untargeted ART ``EvasionAttack`` bound to the classifier, or a function from a
        classifier to one (so with several classifiers).
    :param eps_step: Length of a gradient step, > 0; None is ``eps / 10``.
    :param restarts: Random starts of ``"pgd-K"``, ``"cw-K"``, ``"kl-K"`` and of the examples of ``"transfer"`` and
        ``"quantised-L"``; the worst case per sample is kept.
    :param sources: Names and classifiers of ``"transfer"``, of the same inputs and classes.
    :param autoattack: ``"standard"`` or a list of its attacks (custom).
    :param batch_size: Samples per batch.
    :param seed: Seed of every random start.
    :return: Columns ``model`` (with a mapping), ``attack``, ``norm``, ``eps``, ``steps`` and ``restarts`` (NA where
        there is no such number), ``n``, ``accuracy`` in [0, 1] with the 95 % Wilson interval ``low`` to ``high``,
        ``seconds``, ``flags`` (why the number may be too high: a randomised model, probabilities for logits, vanishing
        gradients, warnings of AutoAttack).
    :raises ValueError: Bad arguments, natural logits with NaN or Inf, or an ``x_adv`` that leaves the threat model.
    :raises TypeError: Arguments of the wrong type.
    """
    threat = check_threat(eps, norm, eps_step, restarts)
    check_sources(sources)
    plans = plan_attacks(attacks, list(sources or {}))
    subjects = make_subjects(classifier, x, y, batch_size, seed)
    for subject in subjects.values():
        check_scale(threat.eps, threat.norm, subject.view)
        for plan in plans:
            check_runnable(subject, plan, autoattack)
    used = sources if any(plan.kind == "transfer" for plan in plans) else None
    made = Sources(used, subjects, threat)
    return as_table({name: run_plans(s, plans, threat, made, autoattack) for name, s in subjects.items()})


def run_plans(
    subject: Subject, plans: Sequence[Plan], threat: Threat, sources: Sources, autoattack: str | Sequence[str]
) -> list[Row]:
    """The rows of one classifier, in the order of the plans; the worst case is computed last, wherever it stands.

    :param subject: The classifier and its samples.
    :param plans: The attacks.
    :param threat: The threat model.
    :param sources: What transferred examples are made on.
    :param autoattack: ``"standard"`` or a list of attacks.
    """
    found = {
        index: run_row(subject, plan, threat, sources, autoattack)
        for index, plan in enumerate(plans)
        if plan.kind != "worst"
    }
    others = list(found.values())
    return [found[index] if index in found else worst_row(others, threat) for index in range(len(plans))]
