"""Accuracies with their intervals; the rows and the table of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from art_lbgat.checks import as_array, check_count, check_number

if TYPE_CHECKING:
    import pandas

WHITE_BOX = "the source is the classifier itself: white-box, no transfer"
_Z = 1.959963984540054  # of the normal distribution, 97.5 %
_DRAWS = 999


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: ``(p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)``.

    It covers the choice of samples only, no seed. Wilson 1927.

    :param share: ``p``, in [0, 1]; it need not be a whole number of samples (a mean over seeds).
    :param n: Samples, at least 1.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range.
    """
    if check_number(share, "share") > 1:
        raise ValueError(f"share: expected a number in [0, 1], got {share!r}.")
    check_count(n, "n")
    scale = 2 * (n + _Z**2)
    centre = (2 * n * share + _Z**2) / scale
    half = _Z / scale * math.sqrt(4 * n * share * (1 - share) + _Z**2)
    return 0.0 if share == 0 else max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)


class Difference(NamedTuple):
    """The difference of two accuracies.

    :param value: The first less the second, in [-1, 1].
    :param low: Lower end of its 95 % interval.
    :param high: Upper end.
    :param seeds: Trainings of each; of one alone the interval is over images only: another may give another difference.
    """

    value: float
    low: float
    high: float
    seeds: int

    @property
    def real(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class Accuracy(NamedTuple):
    """``correct / n``.

    :param correct: Samples that count as right.
    :param n: Samples counted, at least 1.
    """

    correct: int
    n: int

    @property
    def value(self) -> float:
        """The accuracy, in [0, 1]."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """:func:`wilson_interval`, for the population that the samples were drawn from."""
        return wilson_interval(self.value, self.n)

    def __str__(self) -> str:
        """Percent with the interval, such as ``53.20 % [52.22, 54.18]``."""
        low, high = self.interval
        return f"{self.value:.2%} [{100 * low:.2f}, {100 * high:.2f}]".replace("%", " %")


@dataclass(frozen=True)
class Row:
    """What came out under one attack; ``right`` says which samples count as right, bool ``(n,)``."""

    attack: str
    norm: str  # "inf", "2", or empty where there is no ball
    eps: float
    steps: int | None  # None where the attack has no fixed number
    restarts: int | None
    right: Tensor
    seconds: float  # with the making of transferred examples
    flags: tuple[str, ...] = ()  # why the accuracy may be too high
    defended: bool = False  # of the classifier with a defence added, which no worst case takes in

    def as_dict(self) -> dict[str, Any]:
        """The columns."""
        accuracy = Accuracy(int(self.right.sum()), len(self.right))
        low, high = accuracy.interval
        measured = {"n": accuracy.n, "accuracy": accuracy.value, "low": low, "high": high, "seconds": self.seconds}
        named = {name: getattr(self, name) for name in ("attack", "norm", "eps", "steps", "restarts")}
        return {**named, **measured, "flags": "; ".join(self.flags)}


def worst_row(rows: Sequence[Row], norm: str, eps: float) -> Row:
    """A sample counts if it counts in every row; rows of a classifier with a defence added are left out."""
    counted = [row for row in rows if not row.defended]
    right = torch.stack([row.right for row in counted]).all(dim=0)
    flags = tuple(dict.fromkeys(flag for row in counted for flag in row.flags if flag != WHITE_BOX))
    return Row("worst", norm, eps, None, None, right, 0.0, flags)


def as_table(rows: Mapping[str | None, Sequence[Row]]) -> pandas.DataFrame:
    """The rows by name of the classifier, with a column ``model`` unless the one classifier has no name (None)."""
    import pandas

    named = [({} if name is None else {"model": name}) | row.as_dict() for name, each in rows.items() for row in each]
    return pandas.DataFrame(named).astype({"steps": "Int64", "restarts": "Int64"})


def check_columns(table: Any, argument: str, source: str, columns: Iterable[str]) -> None:
    """Refuse what is not the table of a function, which its columns tell."""
    import pandas

    if not isinstance(table, pandas.DataFrame):
        raise TypeError(f"{argument}: expected the table of {source}, got {type(table).__name__}.")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{argument}: expected the table of {source}, got one with missing columns {missing}.")


def paired_difference(masks_a: Any, masks_b: Any) -> Difference:
    """The difference of two methods on the same images and seeds, with a 95 % interval over both.

    A hierarchical bootstrap, in which seeds and images are drawn anew, the same for both methods, gives the shape of
    the interval. Its width, which few seeds make too small and the interaction of seeds and images too large, is that
    of Student's t with the two-way variance ``v_images + v_seeds - v_residual`` and Welch's degrees of freedom. With
    one seed images alone are drawn: the interval says nothing of another training.

    :param masks_a: Which images the first method has right: bool ``(seeds, n)``, or ``(n,)`` of one seed.
    :param masks_b: The same of the second, on the same images, in the same order of seeds.
    :return: The difference; always the same for the same masks, with the other sign where they are exchanged.
    :raises TypeError: Masks that are not bool.
    :raises ValueError: Masks of other shapes, or no image.
    """
    from scipy.stats import t

    pair = [np.atleast_2d(as_array(each, name)) for each, name in ((masks_a, "masks_a"), (masks_b, "masks_b"))]
    for each, name in zip(pair, ("masks_a", "masks_b"), strict=True):
        if each.dtype.kind != "b":
            raise TypeError(f"{name}: expected bool, got dtype {each.dtype}.")
    shapes = [each.shape for each in pair]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or pair[0].size == 0:
        raise ValueError(f"masks_a, masks_b: expected one shape (seeds, n), at least one image, got {shapes}.")
    each = pair[0].astype(np.int64) - pair[1]
    seeds, n = each.shape
    value, by_seed, by_image = each.mean(), each.mean(axis=1), each.mean(axis=0)
    if n == 1:  # which says nothing
        return Difference(float(value), -1.0, 1.0, seeds)
    images, of_seeds, residual = by_image.var(ddof=1) / n, 0.0, 0.0
    if seeds > 1:
        of_seeds = by_seed.var(ddof=1) / seeds
        residual = ((each - by_seed[:, None] - by_image + value) ** 2).sum() / (seeds - 1) / (n - 1) / each.size
    variance = max(images + of_seeds - residual, images, of_seeds)
    if variance == 0:  # every image differs alike
        return Difference(float(value), float(value), float(value), seeds)
    # Images that all seeds treat alike are drawn together, in the order of the first of each, which no sign changes.
    kinds, first, counts = np.unique(each, axis=1, return_index=True, return_counts=True)
    order, generator = np.argsort(first), np.random.default_rng(0)
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), _DRAWS) / seeds
    drawn_images = generator.multinomial(n, counts[order] / n, _DRAWS) / n
    around = (drawn_seeds @ kinds[:, order] * drawn_images).sum(axis=1) - value
    freedom = variance**2 / (images**2 / (n - 1) + of_seeds**2 / max(seeds - 1, 1))
    stretch = t.ppf(0.975, freedom) / _Z * math.sqrt(variance) / around.std()
    low, high = np.clip(value + stretch * np.quantile(around, [0.025, 0.975]), -1, 1).tolist()
    return Difference(float(value), low, high, seeds)


def norm_name(norm: float) -> str:
    """``"inf"`` or ``"2"``, as in the table."""
    return "inf" if norm == math.inf else "2"
