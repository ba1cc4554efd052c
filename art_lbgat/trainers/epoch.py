"""An epoch of training steps, from its start or from where a checkpoint left it, and its row of the history."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from art_lbgat.data.streams import Stream
from art_lbgat.engine.history import Meter
from art_lbgat.engine.step import learning_rate
from art_lbgat.preserve import Key, random_states, seed_everything, set_random_states
from art_lbgat.trainers.loop import Loop
from art_lbgat.trainers.progress import Progress

logger = logging.getLogger(__name__)

_ACCURACIES = ("train_robust_accuracy", "train_natural_accuracy")
_ALL_OF_ONE_LABEL = 0.9  # an epoch of one predicted class that is this often right has one label, or nearly so


@dataclass
class EpochSoFar:
    """Where an epoch is: at its start, or where a checkpoint left it.

    :param step: Batches that were trained on.
    :param skipped: Of which so many were left out, for NaN or Inf.
    :param seconds: What they took.
    :param meter: Sums over them.
    """

    step: int = 0
    skipped: int = 0
    seconds: float = 0.0
    meter: Meter = field(default_factory=Meter)


def train_epoch(
    loop: Loop,
    stream: Stream,
    key: Key,
    progress: Progress,
    so_far: EpochSoFar,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One pass over the data, from where it is.

    :param loop: Takes the steps.
    :param stream: The data.
    :param key: Seed, fit and epoch.
    :param progress: Told of each step.
    :param so_far: Where the epoch is; moved on with every step.
    :param after_step: Called after each step.
    :return: The row of the history.
    :raises ValueError: If no batch came.
    :raises NonFiniteError: NaN or Inf arose, and ``on_nonfinite`` does not leave the step out.
    """
    meter, before = so_far.meter, so_far.seconds
    start = time.perf_counter()
    rates = [learning_rate(optimizer) for optimizer in loop.optimizers]
    begun, found = so_far.step, random_states()
    if not begun:
        seed_everything(key.derive("data"))
    for step, batch in enumerate(stream.epoch(key, so_far.step), so_far.step):
        so_far.skipped += not loop.step(batch, key._replace(step=step), meter)
        so_far.step, so_far.seconds = step + 1, before + time.perf_counter() - start
        progress.update(key.epoch, meter)
        after_step()
    if begun and so_far.step == begun:  # every step was taken before the stop; fetching has drawn numbers all the same
        set_random_states(found)
    if not so_far.step:
        raise ValueError(f"x: no batch came in epoch {key.epoch}; expected at least one.")
    meter = meter.summed(loop.processes, loop.student.device)
    row: dict[str, Any] = {"fit": key.fit, "epoch": key.epoch, **meter.means(), "learning_rate": rates[0]}
    if len(rates) > 1:
        row["guide_learning_rate"] = rates[1]
    if loop.adversary is not None and loop.adversary.eps is not None:
        row["eps"] = loop.adversary.eps * loop.options.eps_factor(key.epoch)
    if loop.adversary is not None:
        max_iter = loop.max_iter(loop.adversary, key.epoch)
        row.update({} if max_iter is None else {"max_iter": max_iter})
    if so_far.skipped:
        row["skipped_steps"] = so_far.skipped
    only = meter.only_class()
    if only is not None and all(row.get(name, 0.0) < _ALL_OF_ONE_LABEL for name in _ACCURACIES):
        row["only_class"] = only
        logger.warning(
            "the robust model gave class %d for every sample of epoch %d: it has collapsed to a constant; "
            "max_grad_norm=1.0, eps_warmup_epochs or a lower learning rate may help.",
            only,
            key.epoch,
        )
    return {**row, "seconds": so_far.seconds, "images_per_second": meter.samples / so_far.seconds}
