"""Training data with extra or generated data mixed into every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from art_lbgat.checks import as_array, check_share
from art_lbgat.data.images import Images, read_npz_images


class MixedData:
    """Data to train on, and extra data of which every batch holds a fixed share.

    A batch of B holds ``round(B * extra_fraction)`` extra samples at random places, the last one as near to that as
    whole samples allow. They come shuffled, none twice before all were used, on through the epochs.

    :param data: :class:`~art_lbgat.data.Images` or arrays ``(x, y)``; an epoch is each of these samples once.
    :param extra: The same, or the path of an ``.npz`` archive (see :func:`~art_lbgat.data.read_npz_images`).
    :param extra_fraction: Share of each batch that comes from ``extra``, in (0, 1).
    """

    def __init__(self, data: Any, extra: Any, extra_fraction: float) -> None:
        self.extra_fraction = check_share(extra_fraction, "extra_fraction")
        if isinstance(extra, (str, Path)):
            extra = read_npz_images(extra, "extra")
        self.data, self.extra = _samples(data, "data"), _samples(extra, "extra")
        shape, other = (np.shape(x.x if isinstance(x, Images) else x)[1:] for x, _ in (self.data, self.extra))
        if shape != other:
            raise ValueError(f"extra: expected samples of shape {shape} as in data, got {other}.")


def _samples(value: Any, name: str) -> tuple[Any, Any]:
    """``(x, y)`` of one half of mixed data; of ``Images`` themselves and None."""
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
