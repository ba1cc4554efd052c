"""A classifier of any input range as a net on images in [0, 1], which is what AutoAttack and RobustBench assume."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from art_lbgat.classifier import TensorView


class UnitModel(nn.Module):
    """The whole classifier, preprocessing included, as a net on inputs in [0, 1].

    ``x = low + u * (high - low)`` for the ``clip_values`` ``(low, high)``; nothing is computed for (0, 1).

    :param view: The classifier.
    :raises ValueError: If it has no ``clip_values``, or other ones for some features than for others.
    """

    def __init__(self, view: TensorView) -> None:
        super().__init__()
        self._view = view
        self._low, self._high = _uniform_range(view)
        with torch.inference_mode(False):  # or it could not be written to outside that mode
            self._non_finite = torch.zeros((), dtype=torch.bool, device=view.device)
        self.eval()

    def forward(self, unit: Tensor) -> Tensor:
        """Logits ``(N, C)`` of inputs ``(N, ...)`` in [0, 1], of any shape with the right number of values."""
        logits = self._view.logits(self.to_raw(unit)).float()  # the attacks mix no types
        self._non_finite |= ~torch.isfinite(logits.detach()).all()  # on the device: asked for once, at the end
        return logits

    @property
    def non_finite(self) -> bool:
        """Whether a forward pass has given NaN or Inf."""
        return bool(self._non_finite)

    def to_raw(self, unit: Tensor) -> Tensor:
        """From [0, 1] to the classifier's own range and shape.

        :param unit: Images in [0, 1], ``(N, channels, height, width)``.
        """
        x = unit.reshape(len(unit), *self._view.classifier.input_shape)
        return x if (self._low, self._high) == (0.0, 1.0) else x * (self._high - self._low) + self._low

    def to_unit(self, x: Tensor) -> Tensor:
        """From the classifier's own range to [0, 1], as images; flat inputs as the squarest image.

        :param x: Raw inputs, ``(N, ...)``.
        """
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
