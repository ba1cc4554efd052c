"""A run as plain data and tensors: what a checkpoint holds, and how a run is put back where it left off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from art_lbgat.engine.checkpoint import Checkpoint
from art_lbgat.preserve import Key, random_states, set_random_states
from art_lbgat.trainers.epoch import EpochSoFar

if TYPE_CHECKING:
    from art_lbgat.trainers.run import Run


def run_state(run: Run) -> dict[str, Any]:
    """The whole run as trees of plain data and tensors, by part; every process has to ask for it.

    :param run: The run.
    """
    loop = run.loop
    meter = run.so_far.meter.state(run.processes)
    return {
        "models": {name: dict(module.state_dict()) for name, module in run.modules.items()},
        "optimizers": [optimizer.state_dict() for optimizer in loop.optimizers],
        "average": None if loop.average is None else loop.average.state(),
        "selection": run.selection.state(),
        "guide_cache": None if loop.guide_cache is None else loop.guide_cache.state(),
        "warm_starts": None if loop.warm_starts is None else loop.warm_starts.state(),
        "randomness": random_states(),
        "run": {
            "seed": run.key.seed,
            "fit": run.key.fit,
            "epoch": run.epoch,
            "steps": run.steps,
            "rollbacks": run.rollbacks,
            "epoch_so_far": [run.so_far.step, run.so_far.skipped, run.so_far.seconds],
            "meter": meter,
            "schedulers": [scheduler.state_dict() for scheduler in run.schedulers],
            "scaler": None if loop.scaler is None else loop.scaler.state_dict(),
            "stream": run.stream.state(at_start=not run.so_far.step),
            "history": run.history.rows,
        },
    }


def load_run(run: Run, found: Checkpoint, *, same_process: bool = False) -> None:
    """Go on from a checkpoint.

    :param run: The run, fresh.
    :param found: The checkpoint.
    :param same_process: Whether the loaders have gone on since, in this process, and are not to be set back.
    :raises ValueError: If it is of more epochs than are to be trained, or does not fit.
    """
    parts, kept, loop = found.parts, found.parts["run"], run.loop
    done = kept["epoch"] - 1 + (kept["epoch_so_far"][0] > 0)
    if done > run.nb_epochs:
        raise ValueError(
            f"nb_epochs: {found.path} is in epoch {done} already; expected at least that, got {run.nb_epochs}."
        )
    for name, module in run.modules.items():
        module.load_state_dict(parts["models"][name])
    stateful = [*loop.optimizers, *run.schedulers, *([] if loop.scaler is None else [loop.scaler])]
    states = [*parts["optimizers"], *kept["schedulers"], *([] if loop.scaler is None else [kept["scaler"]])]
    for each, state in zip(stateful, states, strict=True):
        each.load_state_dict(state)
    if loop.average is not None:
        loop.average.load(parts["average"])
    run.selection.load(parts["selection"])
    _load_memories(run, parts)
    run.key = Key(kept["seed"], kept["fit"])
    run.epoch, run.steps, run.rollbacks = kept["epoch"], kept["steps"], kept["rollbacks"]
    run.so_far = EpochSoFar(*kept["epoch_so_far"])
    run.so_far.meter.load(kept["meter"], loop.student.device, counted=run.processes.is_main)
    run.history.rows[:] = kept["history"]
    if not same_process:
        run.stream.load(kept["stream"], run.key._replace(epoch=run.epoch))
    set_random_states(parts["randomness"])
    run.progress.skip(run.steps)


def _load_memories(run: Run, parts: Mapping[str, Any]) -> None:
    """What is remembered of samples: guide logits, last adversarial examples."""
    loop = run.loop
    for name in ("guide_cache", "warm_starts"):
        if getattr(loop, name) is not None:
            getattr(loop, name).load(parts[name], loop.student.device)
