"""The progress bar of a fit."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Protocol

from tqdm.auto import tqdm

from art_lbgat.engine.history import Meter
from art_lbgat.engine.options import RunOptions

_SECONDS = 0.5  # between two reads of the device, so that the bar costs no synchronisation per step


class _Titled(Protocol):
    title: Any
    options: RunOptions


class Progress:
    """A bar over all steps of a fit, with the current losses and the running robust accuracy.

    :param trainer: Its ``title`` is shown, its ``options.verbose`` decides whether anything is.
    :param steps: Steps of an epoch, if known.
    :param nb_epochs: Number of epochs.
    :param shown: Whether this process shows it at all.
    """

    def __init__(self, trainer: _Titled, steps: int | None, nb_epochs: int, *, shown: bool = True) -> None:
        self._title, self._nb_epochs = trainer.title, nb_epochs
        self._disabled = not (shown and trainer.options.verbose)
        self._total = None if steps is None else steps * nb_epochs
        self._shown = 0.0

    def __enter__(self) -> Progress:
        self._bar = tqdm(total=self._total, desc=self._title, unit="step", disable=self._disabled)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def skip(self, steps: int) -> None:
        """Count steps that were trained before a stop.

        :param steps: How many.
        """
        self._bar.update(steps - self._bar.n)

    def update(self, epoch: int, meter: Meter) -> None:
        """Count one step; show the means of the epoch so far, at most twice a second.

        :param epoch: The epoch, from 1.
        :param meter: Its sums so far.
        """
        self._bar.update()
        now = time.monotonic()
        if not self._disabled and now - self._shown >= _SECONDS:
            self._shown = now
            shown = {k.removeprefix("train_"): f"{v:.3f}" for k, v in meter.means().items()}
            self._bar.set_postfix({"epoch": f"{epoch}/{self._nb_epochs}", **shown})
