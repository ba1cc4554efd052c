"""The step table on a GPU, timed with CUDA events: ``qa/benchmarks/gpu.sh``."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # compile anew in every run

import torch

from art_lbgat.recipes import PUBLISHED
from qa.benchmarks.contestants import Task, authors, floor, missing_options, ours
from qa.benchmarks.report import Row, Topic, Value, show, write
from qa.benchmarks.steps import row_name, step_columns
from qa.benchmarks.timing import Contestant, Rounds, measure

IMAGES, EPOCHS = 50_000, 100  # of CIFAR; of the published recipes
VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "bf16 + channels_last": {"precision": "bf16", "channels_last": True},
    "bf16 + channels_last + compile": {"precision": "bf16", "channels_last": True, "compile": True},
    "fp32 + channels_last": {"channels_last": True},
    "fp32 + channels_last + compile": {"channels_last": True, "compile": True},
}
_FIRST = 3  # variants that are measured at a = 6 too


class Part(NamedTuple):
    """One comparison.

    :param task: What is trained.
    :param share: Its share of the seconds that are left when it begins.
    """

    task: Task
    share: float


def plan(device: str, dry: bool) -> list[Part]:
    """What is measured, the most wanted first.

    :param device: ``"cuda"`` or ``"cpu"``.
    :param dry: A toy size that goes through every line.
    """
    if dry:
        return [Part(Task("digits-cnn", 8, alpha, k=2, steps=2, device=device), 0.5) for alpha in (0.0, 6.0)]
    sizes = [("resnet-18", 128, 0.0, 4, 0.15), ("wrn-34-10", 128, 0.0, 2, 0.45), ("wrn-34-10", 128, 6.0, 2, 0.35),
             ("resnet-18", 128, 6.0, 4, 0.3), ("resnet-18", 512, 0.0, 2, 0.35), ("wrn-34-10", 512, 0.0, 1, 1.0)]  # fmt: skip
    return [Part(Task(m, n, alpha, steps=steps, device=device), share) for m, n, alpha, steps, share in sizes]


def run(parts: Sequence[Part], repeats: int, seconds: float, output: Path) -> dict[str, Topic]:
    """Measure and print each part, and write after each, so that what is done is there if time runs out.

    :param parts: What is measured.
    :param repeats: Rounds.
    :param seconds: For everything.
    :param output: The JSON file.
    :return: The topics, also of a run that was short of time.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    end = time.monotonic() + seconds
    clock = "CUDA events" if torch.cuda.is_available() else "the clock of the CPU"
    notes = [f"Seconds per step by {clock}; one epoch of fit divided by its steps; median [quartiles]."]
    steps = Topic("Training step, LBGAT + TRADES, exact (fp32, TF32 off)", [], notes)
    options = Topic("Opt-in options", [], ["'warm-up' is what the first run took beyond the others."])
    costs = Topic(
        f"{EPOCHS} epochs of {IMAGES:,} images, hours", [], ["Steps alone: no validation, no data set on slow disks."]
    )
    topics = {"step": steps, "options": options, "cost": costs}
    for part in parts:
        now = time.monotonic()
        if now >= end:
            steps.notes.append(f"{row_name(part.task)}: skipped, no time left.")
            continue
        rounds = _measure(part.task, repeats, now + part.share * (end - now), options)
        steps.rows.append(Row(row_name(part.task), step_columns(rounds, part.task)))
        options.rows += _option_rows(rounds, part.task)
        costs.rows.append(Row(row_name(part.task), _hours(rounds, part.task)))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        write(output, topics, {"repeats": repeats, "seconds": seconds})
    for topic in topics.values():
        show(topic)
    return topics


def _measure(task: Task, repeats: int, deadline: float, options: Topic) -> Rounds:
    contestants: dict[str, Contestant] = {"ours": ours(task), "authors": authors(task), "floor": floor(task)}
    for name, variant in list(VARIANTS.items())[: None if task.alpha == 0 else _FIRST]:
        missing = missing_options(variant)
        if missing:
            options.notes.append(f"{name}: skipped, RunOptions has no {', '.join(missing)}.")
        else:
            contestants[name] = ours(task, **variant)
    return measure(contestants, repeats, device=torch.device(task.device), deadline=deadline)


def _option_rows(rounds: Rounds, task: Task) -> list[Row]:
    rows = []
    for name in VARIANTS:
        label = f"{row_name(task)}, {name}"
        if name in rounds.seconds:
            values: dict[str, Value] = {"s": rounds.time(name, task.steps), "warm-up, s": rounds.warm_up(name)}
            for other in ("authors", "ours"):
                if other in rounds.seconds:
                    values[f"{other if other == 'authors' else 'exact'} / this"] = rounds.ratio(other, name)
            rows.append(Row(label, values))
        elif name in rounds.failed:
            rows.append(Row(label, {"s": rounds.failed[name]}))
    return rows


def _hours(rounds: Rounds, task: Task) -> dict[str, Value]:
    """Hours of a whole run of LBGAT by the fastest variant and exactly; the recipes that train this model."""
    found: dict[str, Value] = {}
    steps = EPOCHS * math.ceil(IMAGES / task.batch)
    for name in ("authors", "ours", *VARIANTS):
        if name in rounds.seconds:
            found["exact" if name == "ours" else name] = steps * rounds.time(name, task.steps).median / 3600
    found["recipes"] = ", ".join(recipes_of(task))
    return found


def recipes_of(task: Task) -> list[str]:
    """The published recipes that train this model with this weight on CIFAR.

    :param task: The task.
    :return: Their ids.
    """
    found = [r for r in PUBLISHED if r.method == "lbgat" and r.model == task.model and r.data.startswith("cifar")]
    return [r.id for r in found if r.regularizer == "trades" and r.weight == task.alpha]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the plan of this machine.

    :param arguments: Of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="qa/benchmarks/gpu.sh", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="toy size, also without a GPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=460.0, help="after which no new measurement is begun")
    parser.add_argument("--output", type=Path, default=Path("results/gpu.json"))
    given = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.dry_run:
        parser.error("no CUDA device; --dry-run goes through the same lines at toy size on the CPU")
    run(plan(device, given.dry_run), 1 if given.dry_run else given.repeats, given.seconds, given.output)


if __name__ == "__main__":
    main()
