"""Training data with extra or generated data mixed into every batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from art_lbgat.checks import as_array, check_number
from art_lbgat.classifier import TensorView
from art_lbgat.data.archives import read_npz_images
from art_lbgat.data.arrays import Source
from art_lbgat.data.batches import AnyAugmentation, Batch, augmented, joined
from art_lbgat.data.images import Images
from art_lbgat.fingerprint import described
from art_lbgat.preserve import Key


class MixedData:
    """Data to train on, and extra data of which every batch holds a fixed share.

    :param data: :class:`~art_lbgat.data.Images` or arrays ``(x, y)``; an epoch is each of these samples once.
    :param extra: The same, or the path of an ``.npz`` archive (see :func:`~art_lbgat.data.read_npz_images`).
    :param extra_fraction: Share of each batch that comes from ``extra``, in (0, 1).
    :raises TypeError: If ``data`` or ``extra`` is something else.
    :raises ValueError: ``extra_fraction`` outside (0, 1), no samples, or samples of different shapes.
    :raises FileNotFoundError: If the archive is not there.
    """

    def __init__(self, data: Any, extra: Any, extra_fraction: float) -> None:
        self.extra_fraction = check_number(extra_fraction, "extra_fraction", exclusive=True)
        if self.extra_fraction >= 1:
            raise ValueError(f"extra_fraction: expected a number in (0, 1), got {extra_fraction}.")
        if isinstance(extra, (str, Path)):
            extra = read_npz_images(extra, "extra")
        self.data, self.extra = _pair(data, "data"), _pair(extra, "extra")
        shape, other = (_shape(*each) for each in (self.data, self.extra))
        if shape != other:
            raise ValueError(f"extra: expected samples of shape {shape} as in data, got {other}.")


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    if isinstance(value, Images):
        return value, None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected Images or arrays (x, y), got {type(value).__name__}.")
    x, y = as_array(value[0], name), as_array(value[1], f"{name} (labels)")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name}: expected at least one sample, got none.")
    if y.ndim == 0 or len(y) != len(x):
        raise ValueError(f"{name} (labels): expected {len(x)} labels, one per sample of x, got shape {y.shape}.")
    return value[0], value[1]


def _shape(x: Any, _: Any) -> tuple[int, ...]:
    return x.image_shape if isinstance(x, Images) else tuple(np.shape(x)[1:])


class MixedStream:
    """Shuffled batches of :class:`MixedData`.

    A batch of B holds exactly ``round(B * extra_fraction)`` extra samples (half to even, as python rounds), at random
    places; the last batch of an epoch holds what is left of the data and as large a share of extra samples as whole
    samples allow. Extra samples come in a shuffled order, none twice before all were used, on through the epochs;
    which they are is a function of (seed, fit, epoch).

    :param mixed: The data.
    :param batch_size: Samples per batch.
    :param view: The classifier whose shape, range and classes they must have.
    :param augmentation: Applied to each batch, or None.
    :param avoid_single: Join a last batch of one sample to the one before it.
    :raises ValueError: Bad data; a batch size at which a batch holds no extra samples, or nothing else.
    """

    def __init__(
        self,
        mixed: MixedData,
        batch_size: int,
        view: TensorView,
        augmentation: AnyAugmentation | None = None,
        avoid_single: bool = False,
    ) -> None:
        self._data = Source(*mixed.data, view, ("data", "data (labels)"))
        self._extra = Source(*mixed.extra, view, ("extra", "extra (labels)"))
        self._view, self._augmentation = view, augmentation
        extra = round(batch_size * mixed.extra_fraction)
        own = batch_size - extra
        if extra == 0 or own == 0:
            raise ValueError(
                f"extra_fraction: expected a share of which batches of {batch_size} (batch_size) hold samples of both "
                f"kinds, got {mixed.extra_fraction}: {own} of data and {extra} of extra."
            )
        count = len(self._data)
        sizes = [(own, extra)] * (count // own)
        left = count % own
        if left:
            sizes.append((left, round(left * extra / own)))
        if avoid_single and sum(sizes[-1]) == 1:
            if len(sizes) == 1:
                raise ValueError(
                    f"data: {count} sample gives BatchNorm in train mode no statistics; expected at least 2."
                )
            sizes[-2:] = [(own + left, extra)]
        self._sizes = sizes
        self._extra_per_epoch = sum(each for _, each in sizes)
        self.steps: int | None = len(sizes)

    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        """See :class:`~art_lbgat.data.Stream`; ``rows`` are None."""
        order = torch.randperm(len(self._data), generator=key.generator("order")).numpy()
        extra_order = self._extra_order(key)
        first, first_extra = (sum(each[kind] for each in self._sizes[:first_step]) for kind in (0, 1))
        for step, (own, extra) in enumerate(self._sizes[first_step:], first_step):
            batch = self._data.batch(order[first : first + own])
            if extra:
                batch = self._together(batch, extra_order[first_extra : first_extra + extra])
            first, first_extra = first + own, first_extra + extra
            places = torch.randperm(own + extra, generator=key._replace(step=step).generator("places"))
            batch = Batch(batch.x[places.to(batch.x.device)], batch.y[places])
            yield augmented(batch, self._augmentation, key, step, self._view)

    def fingerprint(self) -> Any:
        """See :class:`~art_lbgat.data.Stream`: SHA-256 over both kinds of samples, and how they are mixed."""
        sha256, sizes = [self._data.sha256(), self._extra.sha256()], [self._sizes[0], self._sizes[-1]]
        return {"sha256": sha256, "sizes": sizes, "augmentation": described(self._augmentation)}

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """See :class:`~art_lbgat.data.Stream`: empty."""
        return {}

    def load(self, state: Mapping[str, Any], key: Key) -> None:
        """See :class:`~art_lbgat.data.Stream`: there is nothing to load."""

    def _together(self, batch: Batch, chosen: NDArray[np.int64]) -> Batch:
        extra = self._extra.batch(chosen)
        if extra.x.device != batch.x.device:  # one held as bytes, the other as numbers
            batch, extra = (each._replace(x=each.x.to(self._view.device)) for each in (batch, extra))
        return joined(batch, extra)

    def _extra_order(self, key: Key) -> NDArray[np.int64]:
        """Indices of this epoch's extra samples: a window of one endless sequence of shuffled passes."""
        size = len(self._extra)
        start = max(key.epoch - 1, 0) * self._extra_per_epoch
        stop = start + self._extra_per_epoch
        passes = range(start // size, (stop - 1) // size + 1)
        whole = [
            torch.randperm(size, generator=key._replace(epoch=0, step=number).generator("extra order")).numpy()
            for number in passes
        ]
        return np.concatenate(whole)[start - passes[0] * size : stop - passes[0] * size]
