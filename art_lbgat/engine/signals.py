"""Signals that end a run at the next step instead of in the middle of one."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")  # the last as SLURM's --signal=USR1@120 sends it; not on every system
_SECONDS = 0.5  # a launcher sends on the Ctrl-C that the terminal has sent already


class Interrupted(SystemExit):
    """A run was asked to end, wrote a checkpoint and left; as an exception that nobody catches, exit code 130."""

    def __init__(self, message: str) -> None:
        super().__init__(130)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Signals:
    """Inside the block SIGTERM, SIGINT and SIGUSR1 only leave their number here; their handlers are then restored.

    A second SIGINT raises ``KeyboardInterrupt`` at once. In other threads than the main one nothing is changed.
    """

    def __init__(self, enabled: bool) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._names = [name for name in _NAMES if enabled and main and hasattr(signal, name)]
        self._found: dict[int, Any] = {}
        self._since = 0.0
        #: The number of the signal that came, 0 if none did.
        self.number = 0

    def __enter__(self) -> Signals:
        for name in self._names:
            number = getattr(signal, name)
            self._found[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._found.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == self.number == signal.SIGINT and now - self._since > _SECONDS:
            raise KeyboardInterrupt
        if not self.number:
            self._since = now
            logger.warning("%s: the run ends after this step and writes a checkpoint.", signal_name(number))
        self.number = number


def signal_name(number: int) -> str:
    """``"SIGTERM"`` for 15, and so on."""
    return signal.Signals(number).name
