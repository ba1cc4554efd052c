"""Seconds of one training step: ours, the authors' procedure, the floor; and what the opt-in options bring."""

from __future__ import annotations

from typing import Any

import torch

from qa.benchmarks.contestants import Task, authors, floor, missing_options, ours
from qa.benchmarks.report import Row, Settings, Target, Topic, Value
from qa.benchmarks.timing import Rounds, measure

VARIANTS: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "channels_last + compile": {"channels_last": True, "compile": True},
    "bf16": {"precision": "bf16"},
    "channels_last + compile + bf16": {"channels_last": True, "compile": True, "precision": "bf16"},
}
# Model, batch size, steps of one epoch, whether it is measured with all repeats.
_TASKS = (("wrn-10-2", 64, 2, True), ("wrn-10-2", 128, 1, False), ("resnet-18-w16", 64, 2, False),
          ("resnet-18-w16", 128, 1, False), ("digits-cnn", 64, 20, True))  # fmt: skip
_TOY = (("digits-cnn", 8, 2, False),)
_EPOCH_NOTE = (
    "Seconds per step: a call of fit for one epoch of 1 to 20 steps, divided by them; 'epoch' leaves out what fit does "
    "before and after. Ratios are taken within each round; median [quartiles]."
)


def row_name(task: Task) -> str:
    """Model, batch size and a, as in the tables."""
    return f"{task.model}, batch {task.batch}, a={task.alpha:g}"


def step_columns(rounds: Rounds, task: Task) -> dict[str, Value]:
    """The columns of one row of the step table.

    :param rounds: What was measured of ``"ours"``, ``"authors"`` and ``"floor"``, as far as memory allowed.
    :param task: The task.
    :return: Values by column.
    """
    seconds = rounds.seconds
    values: dict[str, Value] = {}
    for name in ("ours", "authors", "floor"):
        if name in seconds:
            values[f"{name}, s"] = rounds.time(name, task.steps)
        elif name in rounds.failed:
            values[f"{name}, s"] = rounds.failed[name]
    for label, upper, lower in (
        ("authors / ours", "authors", "ours"),
        ("ours / floor", "ours", "floor"),
        ("ours (epoch) / floor", "ours: epoch", "floor"),
    ):
        if upper in seconds and lower in seconds:
            values[label] = rounds.ratio(upper, lower)
    if "ours" in seconds:
        values["images/s"] = task.batch / rounds.time("ours", task.steps).median
    return values


def run(settings: Settings) -> Topic:
    """The exact step against the authors' procedure and the floor."""
    rows = []
    for model, batch, steps, main in _TOY if settings.toy else _TASKS:
        for alpha in (0.0, 6.0):
            task = Task(model, batch, alpha, 2 if settings.toy else 10, steps)
            contestants = {"ours": ours(task), "authors": authors(task), "floor": floor(task)}
            rounds = measure(contestants, settings.repeats if main else settings.fewer, settings.limit)
            rows.append(Row(row_name(task), step_columns(rounds, task)))
    main_row = "wrn-10-2, batch 64, a={}"
    targets = [
        Target(main_row.format(0), "authors / ours", "at least", 1.4),
        Target(main_row.format(6), "authors / ours", "at least", 1.15),
        *(Target(main_row.format(a), "ours / floor", "at most", 1.05) for a in (0, 6)),
        *(Target(f"digits-cnn, batch 64, a={a}", "ours / floor", "at most", 1.25) for a in (0, 6)),
    ]
    return Topic("Training step, LBGAT + TRADES, K = 10, fp32, exact", rows, [_EPOCH_NOTE], targets)


def options(settings: Settings) -> Topic:
    """The opt-in options against the exact step and the authors' procedure, a = 0."""
    # The graphs of all variants are kept side by side; the default limit is for one.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    task = Task("wrn-10-2", 64, 0.0, 10, 2)
    if settings.toy:
        task = Task("digits-cnn", 8, 0.0, 2, 2)
    notes = [_EPOCH_NOTE, "'warm-up' is what the first run took beyond the others: compilation, for the most part."]
    contestants = {"exact": ours(task), "authors": authors(task)}
    for name, variant in VARIANTS.items():
        missing = missing_options(variant)
        if missing:
            notes.append(f"{name}: skipped, RunOptions has no {', '.join(missing)}.")
        else:
            contestants[name] = ours(task, **variant)
    rounds = measure(contestants, settings.repeats, settings.limit)
    rows = []
    for name in contestants:
        if name == "authors":
            continue
        values: dict[str, Value] = {
            "s": rounds.time(name, task.steps),
            "authors / ours": rounds.ratio("authors", name),
            "exact / ours": rounds.ratio("exact", name),
            "warm-up, s": rounds.warm_up(name),
        }
        rows.append(Row(name, values))
    targets = [] if settings.toy else [Target("channels_last + compile", "authors / ours", "at least", 2.0)]
    return Topic(f"Opt-in options, {row_name(task)}, K = {task.k}", rows, notes, targets)
