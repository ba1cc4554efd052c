"""Validation after epochs: accuracies on held-out data, and which epoch is kept, when training stops early."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from art_lbgat.classifier import TensorView
from art_lbgat.data.stream import Source
from art_lbgat.engine.adversary import Adversary
from art_lbgat.engine.history import correct
from art_lbgat.engine.options import RunOptions
from art_lbgat.preserve import Key, Modes
from art_lbgat.processes import Processes

logger = logging.getLogger(__name__)

States = dict[str, dict[str, Any]]
ROBUST, NATURAL = "validation_robust_accuracy", "validation_natural_accuracy"


class Validation:
    """Natural and robust accuracy on held-out data ``(x, y)``.

    Every epoch is attacked from the same random starts, which do not depend on the batch size, so that epochs are
    compared on equal terms.
    """

    def __init__(self, x: Any, y: Any, view: TensorView, batch_size: int) -> None:
        source = Source(x, y, view, ("validation_data[0]", "validation_data[1]"))
        batch = source.batch(np.arange(len(source)))
        self._x, self._y = batch.x.cpu(), batch.y
        self._view, self._batch_size = view, batch_size
        self.sha256 = source.sha256()

    def accuracies(
        self,
        modes: Modes,
        adversary: Adversary | None,
        seed: int,
        processes: Processes,
        before_batch: Callable[[], None],
    ) -> dict[str, float]:
        """Natural and, with an adversary, robust accuracy in [0, 1] (right naturally and under attack).

        The module is left in eval mode with frozen parameters. What ``before_batch`` raises ends the judging.
        """
        modes.evaluate()
        natural = robust = 0
        starts = [] if adversary is None else adversary.starts(self._x, Key(seed))
        for step, first in enumerate(range(0, len(self._x), self._batch_size)):
            before_batch()
            batch = slice(first, first + self._batch_size)
            share = processes.share(len(self._x[batch]))
            if not share.counted:
                continue
            x = share.of(self._x[batch]).to(self._view.device)
            y = share.of(self._y[batch]).to(self._view.device)
            with torch.no_grad():
                right = correct(self._view.logits(x), y)
            natural += int(right.sum())
            if adversary is not None:
                part = [None if s is None else share.of(s[batch]).to(self._view.device) for s in starts]
                x_adv = adversary.examples(x, y, Key(seed, step=step), part)
                with torch.no_grad():
                    robust += int((right & correct(self._view.logits(x_adv), y)).sum())
        natural, robust = map(int, processes.total(torch.tensor([natural, robust])).tolist())
        accuracies = {NATURAL: natural / len(self._x)}
        return accuracies if adversary is None else {**accuracies, ROBUST: robust / len(self._x)}


class Selection:
    """Compares validated epochs by robust, then natural accuracy; of equal ones the first is best.

    The states of the modules are kept together. What chance would score, by ``nb_classes``, cannot collapse.
    """

    def __init__(self, options: RunOptions, modules: Mapping[str, nn.Module], nb_classes: int) -> None:
        self._options, self._modules = options, modules
        self._worth_losing = 1.5 / nb_classes
        self._states: States = {}
        self._unsaved: States = {}
        self._score: tuple[float, ...] | None = None
        self._epoch: int | None = None
        self._since = self._validated = 0
        self.stop: str | None = None

    def offer(self, accuracies: Mapping[str, float], epoch: int) -> dict[str, Any]:
        """Take the accuracies of one epoch, with its weights in the modules; returns what the history says of it."""
        self._validated += 1
        row: dict[str, Any] = {"selection": self._options.selection}
        if ROBUST in accuracies:
            row["collapsed"] = self._collapsed(accuracies[ROBUST], epoch)
        score = tuple(accuracies[name] for name in (ROBUST, NATURAL) if name in accuracies)
        if self._score is None or score > self._score:
            self._score, self._epoch, self._since = score, epoch, 0
            if self._options.keep != "last":
                self._states, self._unsaved = states(self._modules), unsaved(self._modules)
        else:
            self._since += 1
            if self._options.patience is not None and self._since >= self._options.patience:
                self.stop = f"no better validation accuracy for {self._since} validated epochs"
        return row

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes: the best weights so far, their score, and the patience used up."""
        names = ("states", "unsaved", "score", "epoch", "since", "validated")
        return {name: getattr(self, f"_{name}") for name in names} | {"stop": self.stop}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that :meth:`state` gave."""
        for name, value in state.items():
            setattr(self, "stop" if name == "stop" else f"_{name}", value)

    def finish(self, last_epoch: int) -> tuple[int, str]:
        """Put the best weights back where they are to be kept; returns the epoch of the weights, and why."""
        stopped = f" (stopped early: {self.stop})" if self.stop else ""
        if self._options.keep == "last" or self._epoch is None or self._score is None:
            return last_epoch, f"last epoch{'' if self._validated else ' (no validation data)'}{stopped}"
        for name, module in self._modules.items():
            module.load_state_dict(self._states[name])
        load_unsaved(self._modules, self._unsaved)
        measure = f"robust {self._options.selection} accuracy" if len(self._score) > 1 else "natural accuracy"
        return self._epoch, f"highest {measure} ({self._score[0]:.4f}) of {self._validated} validated epochs{stopped}"

    def _collapsed(self, robust: float, epoch: int) -> bool:
        if self._score is None or self._score[0] < self._worth_losing or robust >= self._score[0] / 2:
            return False
        message = (
            f"robust accuracy collapsed in epoch {epoch}: {robust:.4f}, after {self._score[0]:.4f} in epoch "
            f"{self._epoch} (catastrophic overfitting)"
        )
        logger.warning("%s", message)
        if self._options.on_collapse == "stop":
            self.stop = message
        return True


def states(modules: Mapping[str, nn.Module]) -> States:
    """A copy of the weights and buffers of every module, by its name; entries may be anything (get_extra_state)."""
    return {
        name: {
            key: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
            for key, value in module.state_dict().items()
        }
        for name, module in modules.items()
    }


def unsaved(modules: Mapping[str, nn.Module]) -> States:
    """A copy of the buffers of every module that its state dict leaves out (``persistent=False``)."""
    held = {name: module.state_dict() for name, module in modules.items()}
    return {n: {k: b.detach().clone() for k, b in m.named_buffers() if k not in held[n]} for n, m in modules.items()}


@torch.no_grad()
def load_unsaved(modules: Mapping[str, nn.Module], found: States) -> None:
    """Put back what :func:`unsaved` copied; what has another shape by now is a cache of the last inputs."""
    for name, module in modules.items():
        for key, buffer in module.named_buffers():
            value = found.get(name, {}).get(key)
            if value is not None and value.shape == buffer.shape:
                buffer.copy_(value)
