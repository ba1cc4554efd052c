"""NaN and infinities: found at the step where they arise, and said where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_BY_SAMPLE = ("x", "x_adv", "logits")  # the ends of the names of what has a row per sample
MAX_SKIPPED = 10  # steps in a row
MAX_ROLLBACKS = 3
ROLLBACK_FACTOR = 0.5


class NonFiniteError(FloatingPointError, ValueError):
    """NaN or Inf arose in training: the message says where, in which samples, and with which terms and rates."""


def all_finite(values: Sequence[Tensor]) -> bool:
    """Whether no value is NaN or Inf; one read from the device, and one pass over each tensor.

    A sum of finite values that overflows is asked again, value by value.

    :param values: Tensors of any shape, on one device.
    """
    sums = torch.stack([value.detach().sum(dtype=torch.float32) for value in values])
    return bool(torch.isfinite(sums).all()) or all(bool(torch.isfinite(value).all()) for value in values)


def describe(
    places: Mapping[str, Tensor],
    rows: Tensor | None,
    terms: Mapping[str, float],
    rates: Sequence[float],
    epoch: int,
    step: int,
) -> str:
    """What a user needs to find the cause.

    :param places: Tensors by name in the order in which the step made them; the first that is not finite is the cause.
    :param rows: Indices of the samples in the data set, ``(N,)``, or None where they are not known.
    :param terms: Values of the loss terms.
    :param rates: Learning rates.
    :param epoch: The epoch, from 1.
    :param step: The step within it, from 1.
    """
    bad = {name: value for name, value in places.items() if not bool(torch.isfinite(value).all())}
    parts = []
    for name, value in bad.items():
        found = ~torch.isfinite(value)
        if value.ndim > 1 and name.endswith(_BY_SAMPLE):
            samples = found.flatten(1).any(dim=1).nonzero().flatten().cpu()
            named = f"samples {_short(rows[samples])}" if rows is not None else f"rows {_short(samples)} of the batch"
            parts.append(f"{name} ({named})")
        else:
            parts.append(f"{name} ({int(found.sum())} of {value.numel()} values)" if value.ndim else name)
        if len(parts) == 5:
            parts.append(f"and {len(bad) - 5} more") if len(bad) > 5 else None
            break
    causes = "; ".join(parts) or "in another process"
    values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
    shown = ", ".join(f"{rate:g}" for rate in rates)
    return f"NaN or Inf in epoch {epoch}, step {step}: {causes}. Terms: {values or 'none'}; learning rate {shown}."


def _short(numbers: Tensor) -> str:
    shown = ", ".join(map(str, numbers[:10].tolist()))
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"
