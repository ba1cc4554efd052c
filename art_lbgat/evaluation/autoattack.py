"""AutoAttack (arXiv 2003.01690) through the package that RobustBench depends on."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from art_lbgat.bridge import TensorView
from art_lbgat.checks import check_choice
from art_lbgat.engine.modes import evaluating
from art_lbgat.engine.randomness import preserved_randomness

ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
_SQUARE_L2_SIDE = 5  # its L2 patches tile a fifth of the height; smaller images end in a division by zero


class AutoAttackResult(NamedTuple):
    """What AutoAttack found.

    :param x_adv: Adversarial examples in raw input units, ``(N, ...)``; samples that were not broken keep ``x``.
    :param flags: Its warnings (randomised or dynamic defence, zero gradients, Square stronger, ...), empty if none.
    """

    x_adv: Tensor
    flags: tuple[str, ...]


class UnitModel(nn.Module):
    """The whole classifier, preprocessing included, as a net on inputs in [0, 1], which is what AutoAttack assumes.

    ``x = low + u * (high - low)`` for the ``clip_values`` ``(low, high)``; nothing is computed for (0, 1).

    :param view: The classifier.
    """

    def __init__(self, view: TensorView) -> None:
        super().__init__()
        self._view = view
        self._low, self._high = _uniform_range(view)

    def forward(self, unit: Tensor) -> Tensor:
        """Logits ``(N, C)`` of inputs ``(N, ...)`` in [0, 1], of any shape with the right number of values."""
        return self._view.logits(self.to_raw(unit))

    def to_raw(self, unit: Tensor) -> Tensor:
        """From [0, 1] to the classifier's own range and shape."""
        x = unit.reshape(len(unit), *self._view.classifier.input_shape)
        return x if (self._low, self._high) == (0.0, 1.0) else x * (self._high - self._low) + self._low

    def to_unit(self, x: Tensor) -> Tensor:
        """From the classifier's own range to [0, 1], as images; flat inputs as the squarest image."""
        unit = x if (self._low, self._high) == (0.0, 1.0) else (x - self._low) / (self._high - self._low)
        if unit.ndim == 4:
            return unit
        size = unit[0].numel()
        height = max(h for h in range(1, math.isqrt(size) + 1) if size % h == 0)
        return unit.reshape(len(unit), 1, height, size // height)

    @property
    def scale(self) -> float:
        """Raw units per unit of [0, 1]."""
        return self._high - self._low


def auto_attack(
    view: TensorView,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: float = math.inf,
    attacks: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
) -> AutoAttackResult:
    """Run AutoAttack on a classifier, preprocessing included.

    :param view: The classifier; attacked in eval mode, modes restored.
    :param x: Raw natural inputs, ``(N, *input_shape)``, on the classifier's device.
    :param y: Index labels, ``(N,)``.
    :param eps: Radius in raw input units.
    :param norm: ``math.inf`` or 2.
    :param attacks: ``"standard"`` (APGD-CE, targeted APGD-DLR, targeted FAB, Square) or a list of names (custom). With
        fewer than 10 classes the number of targets is lowered to the classes there are.
    :param batch_size: Samples attacked together.
    :param seed: Seed of every attack; the global generators are left as found.
    :return: The examples and the warnings.
    :raises ValueError: No or non-uniform ``clip_values``, unknown attacks, too few classes or
        too small images for an attack.
    """
    from pyautoattack import AutoAttack, checks

    nb_classes = view.classifier.nb_classes
    if isinstance(attacks, str) and attacks != "standard":
        attacks = [attacks]
    names = None if attacks == "standard" else [check_choice(name, "attacks", ATTACKS) for name in attacks]
    if nb_classes < 4 and (names is None or {"apgd-t", "apgd-dlr"} & set(names)):
        raise ValueError(
            f"attacks: the targeted DLR loss of AutoAttack needs at least 4 classes, the classifier has {nb_classes}; "
            "use a custom list such as ['apgd-ce', 'fab-t', 'square']."
        )
    model = UnitModel(view)
    unit_x = model.to_unit(x).contiguous()
    if norm != math.inf and min(unit_x.shape[2:]) < _SQUARE_L2_SIDE and (names is None or "square" in names):
        raise ValueError(
            f"attacks: Square in L2 needs images of at least {_SQUARE_L2_SIDE}x{_SQUARE_L2_SIDE} values, got "
            f"{tuple(unit_x.shape[2:])}; leave 'square' out with a custom list."
        )
    with preserved_randomness(), _trace_kept(checks), _warnings() as flags, evaluating(view.module):
        for counter in checks.funcs:
            checks.funcs[counter] = 0  # module-global: one hit would flag every later model of the process
        runner: Any = AutoAttack(
            model,
            attacks=names,
            device=view.device,
            eps=eps / model.scale,
            norm="Linf" if norm == math.inf else "L2",
            seed=seed,
            version="standard" if names is None else "custom",
        )
        runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = min(9, nb_classes - 1)
        found = runner.run_standard_evaluation(unit_x, y, batch_size=batch_size)
        unit = found[0] if isinstance(found, tuple) else found
        broken = (unit != unit_x).flatten(1).any(dim=1)
        raw = torch.where(broken.reshape(-1, *[1] * (x.ndim - 1)), model.to_raw(unit).detach(), x)
    return AutoAttackResult(raw, tuple(flags))


def _uniform_range(view: TensorView) -> tuple[float, float]:
    bounds = view.bounds()
    if bounds is None:
        raise ValueError(
            f"{view.name}: AutoAttack needs bounded inputs; build the classifier with clip_values=(min, max)."
        )
    low, high = (torch.unique(bound) for bound in bounds)
    if len(low) != 1 or len(high) != 1:
        raise ValueError(
            f"{view.name}: AutoAttack needs one range for all features, got clip_values that differ by feature."
        )
    return float(low), float(high)


@contextmanager
def _trace_kept(checks: Any) -> Iterator[None]:
    """AutoAttack ends one check with ``sys.settrace(None)``, which blinds coverage and debuggers.

    A trace function belongs to its thread, so that check is given a thread of its own.
    """
    original = checks.check_dynamic

    def in_a_thread(*args: Any, **kwargs: Any) -> None:
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(original, *args, **kwargs).result()

    checks.check_dynamic = in_a_thread
    try:
        yield
    finally:
        checks.check_dynamic = original


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what AutoAttack's logger warns of, without repeats."""
    messages: list[str] = []

    class Collector(logging.Handler):
        """Keeps each message once."""

        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage().split(" See ")[0].strip()
            if message not in messages:
                messages.append(message)

    logger, handler = logging.getLogger("auto-attack"), Collector(level=logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
