"""Which epoch is kept, when training stops early, and whether robustness collapsed."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from art_lbgat.engine.options import RunOptions

logger = logging.getLogger(__name__)

States = dict[str, dict[str, Any]]
_STATE = ("states", "score", "epoch", "since", "validated")
ROBUST, NATURAL = "validation_robust_accuracy", "validation_natural_accuracy"


class Selection:
    """Judges validated epochs by robust, then natural accuracy; of equal ones the first is best.

    :param options: ``keep``, ``patience``, ``on_collapse`` and ``selection`` are followed.
    :param modules: The modules that are trained, by name; their states are kept together.
    :param nb_classes: Number of classes, for what chance would score.
    """

    def __init__(self, options: RunOptions, modules: Mapping[str, nn.Module], nb_classes: int) -> None:
        self._options, self._modules = options, modules
        self._worth_losing = 1.5 / nb_classes
        self._states: States = {}
        self._score: tuple[float, ...] | None = None
        self._epoch: int | None = None
        self._since = self._validated = 0
        self.stop: str | None = None

    def offer(self, accuracies: Mapping[str, float], epoch: int) -> dict[str, Any]:
        """Take the accuracies of one epoch, with its weights in the modules.

        :param accuracies: Natural and, under attack, robust accuracy by name.
        :param epoch: The epoch, from 1.
        :return: What the history says of it: ``selection``, and ``collapsed`` where there is a robust accuracy.
        """
        self._validated += 1
        row: dict[str, Any] = {"selection": self._options.selection}
        if ROBUST in accuracies:
            row["collapsed"] = self._collapsed(accuracies[ROBUST], epoch)
        score = tuple(accuracies[name] for name in (ROBUST, NATURAL) if name in accuracies)
        if self._score is None or score > self._score:
            self._score, self._epoch, self._since = score, epoch, 0
            if self._options.keep != "last":
                self._states = self.states()
        else:
            self._since += 1
            if self._options.patience is not None and self._since >= self._options.patience:
                self.stop = f"no better validation accuracy for {self._since} validated epochs"
        return row

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes: the best weights so far, their score, and the patience used up."""
        return {name: getattr(self, f"_{name}") for name in _STATE} | {"stop": self.stop}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that :meth:`state` gave.

        :param state: The state.
        """
        for name in _STATE:
            setattr(self, f"_{name}", state[name])
        self.stop = state["stop"]

    def finish(self, last_epoch: int) -> tuple[int, str]:
        """Put the best weights back where they are to be kept.

        :param last_epoch: The last epoch, from 1.
        :return: The epoch whose weights are in the modules now, and why.
        """
        stopped = f" (stopped early: {self.stop})" if self.stop else ""
        if self._options.keep == "last" or self._epoch is None or self._score is None:
            return last_epoch, f"last epoch{'' if self._validated else ' (no validation data)'}{stopped}"
        for name, module in self._modules.items():
            module.load_state_dict(self._states[name])
        measure = f"robust {self._options.selection} accuracy" if len(self._score) > 1 else "natural accuracy"
        return self._epoch, f"highest {measure} ({self._score[0]:.4f}) of {self._validated} validated epochs{stopped}"

    def states(self) -> States:
        """A copy of the present weights and buffers of every module, by its name."""
        return {
            name: {key: _copied(value) for key, value in module.state_dict().items()}
            for name, module in self._modules.items()
        }

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


def _copied(value: Any) -> Any:
    """A copy of one entry of a state dict, which may be anything (``get_extra_state``)."""
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
