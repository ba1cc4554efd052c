"""One row: make the examples of one attack, verify them, count."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from art_lbgat.evaluation import health
from art_lbgat.evaluation.examples import make_examples
from art_lbgat.evaluation.plan import Plan, Threat, norm_name
from art_lbgat.evaluation.rows import Row
from art_lbgat.evaluation.subject import Subject
from art_lbgat.evaluation.transfer import Sources
from art_lbgat.evaluation.verify import verify


def run_row(
    subject: Subject,
    plan: Plan,
    threat: Threat,
    sources: Sources,
    autoattack: str | Sequence[str] = "standard",
    rows: Tensor | None = None,
) -> Row:
    """The row of one attack: a sample counts if it is right naturally and under the attack.

    Only samples that are right naturally are attacked by the suite's own attacks, since the others count as wrong
    anyway; every attack judges all of these by itself, whatever the other rows found.

    :param subject: The classifier and its samples.
    :param plan: The attack; any kind but ``"worst"``.
    :param threat: The ball and the search.
    :param sources: Where transferred examples come from.
    :param autoattack: What ``"autoattack"`` runs.
    :param rows: Samples that may count, bool ``(n,)``; None for all.
    :raises ValueError: An ``x_adv`` that leaves the threat model, or an attack that cannot be run on the classifier.
    """
    start, notes = time.perf_counter(), tuple(health.flags(subject.health).values())
    right = subject.right
    if plan.kind == "quantised":
        right, _ = subject.judge(_shown(subject, plan, subject.x), torch.ones_like(right))
    right = right if rows is None else right & rows
    if plan.kind == "natural":
        return Row("natural", "", 0.0, 0, 0, right, subject.seconds, notes)
    made = make_examples(subject, plan, threat, sources, autoattack, right)
    title = f"attack {made.name!r}"
    verify(subject.x, made.x_adv, threat.eps, threat.norm, subject.bounds(), subject.view.value_range(), title)
    right, nonfinite = subject.judge(_shown(subject, plan, made.x_adv), right)
    broken = (f"logits are NaN or Inf for {nonfinite} adversarial examples, counted as wrong",) if nonfinite else ()
    return Row(
        made.name,
        norm_name(threat.norm),
        threat.eps,
        made.steps,
        made.restarts,
        right,
        made.seconds + time.perf_counter() - start,
        notes + made.flags + broken,
        plan.kind == "quantised",
    )


def quantise(x: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    """``low + round((x - low) / (high - low) * (L - 1)) / (L - 1) * (high - low)``: the nearest of L even levels.

    :param x: Raw inputs.
    :param low: Lowest values.
    :param high: Highest values.
    :param levels: ``L``, at least 2.
    """
    return low + torch.round((x - low) / (high - low) * (levels - 1)) / (levels - 1) * (high - low)


def _shown(subject: Subject, plan: Plan, x: Tensor) -> Tensor:
    """What the classifier sees of ``x``: rounding belongs to inference, so it comes after the verification."""
    bounds = subject.bounds()
    return x if plan.kind != "quantised" or bounds is None else quantise(x, *bounds, plan.levels)
