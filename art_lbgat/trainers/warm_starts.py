"""The adversarial examples of the last epoch, kept as the starts of the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from art_lbgat.memory import to_device


class WarmStarts:
    """``x_adv`` by sample, so that perturbations grow over epochs: ``x_adv_e`` starts from ``project(x_adv_{e-1})``.

    Zheng et al., ATTA (arXiv 1912.11969), section 4: what fools the model of one epoch still fools that of the next.
    Held on the classifier's device, exactly (float32): 4 bytes per value of the data set, 614 MB for CIFAR-10.

    :param samples: How many samples the data set has.
    """

    def __init__(self, samples: int) -> None:
        self._known = torch.zeros(samples, dtype=torch.bool)
        self._x_adv: Tensor | None = None

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes."""
        return {"known": self._known, "values": self._x_adv}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a state that :meth:`state` gave, on ``device``.

        :param state: The state.
        :param device: Where the points go.
        """
        self._known = state["known"]
        self._x_adv = None if state["values"] is None else state["values"].to(device)

    def get(self, rows: Tensor | None) -> Tensor | None:
        """The last ``x_adv`` of these samples, ``(N, ...)``, a copy; None unless all have one.

        :param rows: Indices into the data set, ``(N,)`` int64 on the CPU, or None where they are not known.
        """
        if rows is None or self._x_adv is None or not bool(self._known[rows].all()):
            return None
        return self._x_adv[to_device(rows, self._x_adv.device)]

    def put(self, rows: Tensor | None, x_adv: Tensor) -> None:
        """Keep the ``x_adv`` of these samples.

        :param rows: Indices of the samples, ``(N,)``.
        :param x_adv: Their adversarial examples.
        """
        if rows is None:
            return
        if self._x_adv is None:
            self._x_adv = x_adv.new_empty((len(self._known), *x_adv.shape[1:]))
        self._x_adv[to_device(rows, x_adv.device)] = x_adv.detach()
        self._known[rows] = True
