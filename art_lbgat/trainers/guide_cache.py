"""The answers of a frozen guide, kept from the first epoch for all later ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class GuideCache:
    """Logits of the guide by sample, filled batch by batch.

    The logits of a sample are those of the batch it was first in; computed anew in another batch they may differ in
    the last bit, which is why the cache is an option.
    """

    def __init__(self) -> None:
        self._logits: Tensor | None = None
        self._known = torch.zeros(0, dtype=torch.bool)

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes."""
        return {"known": self._known, "values": self._logits}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a state that :meth:`state` gave, on ``device``.

        :param state: The state.
        :param device: Where the logits go.
        """
        self._known = state["known"]
        self._logits = None if state["values"] is None else state["values"].to(device)

    def get(self, rows: Tensor | None) -> Tensor | None:
        """The logits ``(N, C)`` of these samples, or None unless all are known.

        :param rows: Indices into the data set, ``(N,)`` int64 on the CPU, or None where they are not known.
        """
        if (
            rows is None
            or self._logits is None
            or int(rows.max()) >= len(self._known)
            or not bool(self._known[rows].all())
        ):
            return None
        return self._logits[rows.to(self._logits.device)]

    def put(self, rows: Tensor, logits: Tensor) -> None:
        """Keep the logits ``(N, C)`` of these samples.

        :param rows: Indices of the samples, ``(N,)``.
        :param logits: Their logits.
        """
        size = max(int(rows.max()) + 1, len(self._known))
        if self._logits is None or size > len(self._known):
            grown = logits.new_zeros((size, logits.shape[1]))
            known = torch.zeros(size, dtype=torch.bool)
            if self._logits is not None:
                grown[: len(self._logits)], known[: len(self._known)] = self._logits, self._known
            self._logits, self._known = grown, known
        self._logits[rows.to(self._logits.device)] = logits.detach()
        self._known[rows] = True
