"""AutoAttack's own checks of a defence, as flags by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn

RANDOMISED, SOFTMAX, DYNAMIC = "randomised", "softmax", "dynamic"
ZERO_GRADIENTS, SQUARE_STRONGER, FEW_CLASSES = "zero gradients", "square stronger", "few classes"
NON_FINITE, NON_FINITE_GRADIENTS = "non-finite logits", "non-finite gradients"
BATCH_DEPENDENT = "batch dependent"


class Flags:
    """Collects what is warned of while :meth:`named` says what it is about; stands in for AutoAttack's logger.

    :param messages: The first message of each name.
    """

    def __init__(self) -> None:
        self.messages: dict[str, str] = {}
        self._name = ""

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Warnings inside the block belong to this name.

        :param name: The name of an attack.
        """
        self._name = name
        try:
            yield
        finally:
            self._name = ""

    def warning(self, message: str) -> None:
        """How pyautoattack warns.

        :param message: What it says.
        """
        if self._name:
            self.messages.setdefault(self._name, message.split(" See ")[0].removeprefix("Warning: ").strip())

    def log(self, message: str) -> None:
        """How autoattack warns, and tells its progress.

        :param message: What it says.
        """
        if message.startswith("Warning: "):
            self.warning(message)

    def debug(self, message: str) -> None:
        """Progress, which is not kept.

        :param message: What it says.
        """

    info = debug


def check_defence(checks: ModuleType, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, str]:
    """Whether the defence is one that AutoAttack cannot judge well, by its checks on one batch.

    :param checks: The module ``checks`` of the AutoAttack package.
    :param model: Gives logits for inputs in [0, 1].
    :param x: A batch of natural inputs.
    :param y: Its labels.
    :return: Messages of ``"randomised"``, ``"softmax"``, ``"dynamic"``, as far as they apply.
    """
    flags = Flags()
    with flags.named(RANDOMISED):
        checks.check_randomized(model, x, y, bs=len(x), logger=flags)
    with flags.named(SOFTMAX):
        checks.check_range_output(model, x, logger=flags)
    for counter in checks.funcs:
        checks.funcs[counter] = 0  # module-global: one hit would flag every later model of the process
    # It ends with sys.settrace(None), which blinds coverage and debuggers; a trace function belongs to its thread.
    with flags.named(DYNAMIC), ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(checks.check_dynamic, model, x, False, logger=flags).result()
    return flags.messages


def check_square(checks: ModuleType, accuracies: Mapping[str, float]) -> dict[str, str]:
    """Whether Square, which uses no gradients, found more than the attacks before it left.

    :param checks: The module ``checks`` of the AutoAttack package.
    :param accuracies: Accuracy after each attack, ``"clean"`` among them.
    :return: The message of ``"square stronger"``, if it applies.
    """
    flags = Flags()
    with flags.named(SQUARE_STRONGER):
        checks.check_square_sr(dict(accuracies), logger=flags)
    return flags.messages


def collect(runner: Any) -> Flags:
    """Make the attacks of AutoAttack report zero gradients to new :class:`Flags`, which are returned.

    :param runner: The object of the package.
    """
    flags = Flags()
    for attack in (runner.apgd, runner.apgd_targeted):
        attack.logger = flags
    return flags
