"""Streams of what is held in memory: arrays of numbers, or images as bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.checks import check_count, check_flag, check_inputs, check_kind, check_labels
from art_lbgat.classifier import TensorView
from art_lbgat.data.batches import AnyAugmentation, Batch, augmented, check_augmentation
from art_lbgat.data.images import Images, as_float, to_range
from art_lbgat.fingerprint import described, sha256_of
from art_lbgat.memory import to_device
from art_lbgat.preserve import Key

logger = logging.getLogger(__name__)


class Source:
    """Samples in memory, checked once, of which batches are gathered by index.

    :param x: Raw inputs ``(n, ...)``, or :class:`~art_lbgat.data.Images`; not copied.
    :param y: Labels, or None with ``Images``.
    :param view: The classifier whose shape, range and classes they must have.
    :param names: The names of ``x`` and ``y`` in errors.
    :raises ValueError: See :func:`art_lbgat.checks.check_inputs` and :func:`art_lbgat.checks.check_labels`.
    """

    def __init__(self, x: Any, y: Any, view: TensorView, names: tuple[str, str] = ("x", "y")) -> None:
        self._view = check_kind(view, "view", TensorView)
        self._scale: float | None = None
        if isinstance(x, Images):
            shape = tuple(view.classifier.input_shape)
            if x.image_shape != shape:
                raise ValueError(f"{names[0]}: expected shape (N, {', '.join(map(str, shape))}), got {x.x.shape}.")
            self._x: NDArray[Any] = x.x
            self._scale, y = x.scale, x.y
        else:
            self._x = check_inputs(x, view.classifier, names[0])
        self._y = check_labels(y, view.classifier.nb_classes, names[1], length=len(self._x))

    def __len__(self) -> int:
        return len(self._x)

    def sha256(self) -> str:
        """SHA-256 over the samples and labels as they are held."""
        return sha256_of([self._x, self._y])

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The samples of these indices.

        :param indices: Indices into the data, ``(N,)``.
        :return: ``x`` float32 in the classifier's range, on its device if the data are bytes, else on the CPU; the
            labels; ``rows`` are the indices.
        """
        x = self._x[indices]
        if self._scale is None:
            inputs = torch.from_numpy(x.astype(np.float32, copy=False))
        else:
            inputs = self._on_device(torch.from_numpy(x), self._scale)
        return Batch(inputs, torch.from_numpy(self._y[indices]), torch.from_numpy(indices))

    def _on_device(self, x: Tensor, scale: float) -> Tensor:
        clip_values = self._view.classifier.clip_values
        unit = clip_values is None or bool(np.all(clip_values[0] == 0) and np.all(clip_values[1] == 1))
        return to_range(as_float(to_device(x, self._view.device), scale), None if unit else self._view.bounds())


class ArrayStream:
    """Shuffled batches of data in memory; every sample once per epoch, the last partial batch kept.

    A last batch of one sample is joined to the batch before it where ``avoid_single`` asks for it (batch-norm
    statistics of one sample are undefined). The data are not copied; only batches are, and of images held as bytes
    only the batch is converted, on the classifier's device: ``low + x / scale * (high - low)`` of its ``clip_values``.

    :param x: Raw inputs ``(n, ...)``, or :class:`~art_lbgat.data.Images`.
    :param y: Labels, or None with ``Images``.
    :param batch_size: Samples per batch.
    :param view: The classifier whose shape, range and classes the samples must have.
    :param augmentation: Applied to each batch, or None.
    :param avoid_single: Whether a batch of one must not occur.
    :raises TypeError: An argument of another type.
    :raises ValueError: Bad data; ``avoid_single`` with a single sample, or with ``batch_size=1``.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        batch_size: int,
        view: TensorView,
        augmentation: AnyAugmentation | None = None,
        avoid_single: bool = False,
    ) -> None:
        check_count(batch_size, "batch_size")
        check_augmentation(augmentation)
        check_flag(avoid_single, "avoid_single")
        self._source, self._view, self._augmentation = Source(x, y, view), view, augmentation
        self._batch_size = batch_size
        count = len(self._source)
        if avoid_single and min(batch_size, count) == 1:
            raise ValueError(
                f"batch_size: batches of one sample (batch_size={batch_size}, {count} samples) give BatchNorm in "
                "train mode no statistics; expected at least 2 samples per batch."
            )
        starts = list(range(0, count, batch_size))
        if avoid_single and count - starts[-1] == 1:
            logger.info("The last batch of one sample is joined to the one before it (BatchNorm needs at least two).")
            starts.pop()
        self._slices = [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]
        self.steps: int | None = len(self._slices)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._source)

    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        """See :class:`~art_lbgat.data.Stream`."""
        order = torch.randperm(len(self._source), generator=key.generator("order")).numpy()
        for step, rows in enumerate(self._slices[first_step:], first_step):
            yield augmented(self._source.batch(order[rows]), self._augmentation, key, step, self._view)

    def fingerprint(self) -> Any:
        """See :class:`~art_lbgat.data.Stream`: SHA-256 over all samples and labels, and how they are batched."""
        batches = {"batch_size": self._batch_size, "steps": self.steps, "augmentation": described(self._augmentation)}
        return {"sha256": self._source.sha256(), **batches}

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """See :class:`~art_lbgat.data.Stream`: empty."""
        return {}

    def load(self, state: Mapping[str, Any], key: Key) -> None:
        """See :class:`~art_lbgat.data.Stream`: there is nothing to load."""
