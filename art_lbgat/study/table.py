"""The table of a study: means with confidence intervals, and differences paired over seeds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from art_lbgat.checks import check_kind

if TYPE_CHECKING:
    import pandas

COUNTS = {"natural": "n", "pgd-20": "n", "autoattack": "n_autoattack"}  # the column of how many images
MEASURES = tuple(COUNTS)
_CONFIDENCE = 0.95


def summarize(runs: pandas.DataFrame, baseline: str | None = None) -> pandas.DataFrame:
    """Mean, spread and interval over seeds, a row per eps and arm, in the order of the runs.

    :param runs: The table of :func:`~art_lbgat.study.run_study`.
    :param baseline: The arm that the others are compared with, seed by seed; None compares with none.
    :return: In percent, for each accuracy: ``_mean``, ``_std`` (sample standard deviation) and ``_ci`` (half the width
        of the 95 % interval of the mean, Student's t), NaN for one seed; with a baseline ``_diff`` and ``_diff_ci``
        (mean and half interval of the differences of equal seeds); mean seconds; number of seeds.
    :raises TypeError: If ``runs`` is no table.
    :raises ValueError: If it is another table, or there is no arm ``baseline``.
    """
    import pandas

    check_kind(runs, "runs", pandas.DataFrame)
    lacking = {"arm", "eps", "seed", "train_seconds", "judge_seconds"} - set(runs.columns)
    if lacking:
        raise ValueError(f"runs: expected the table of run_study, missing columns {sorted(lacking)}.")
    if baseline is not None and not (isinstance(baseline, str) and baseline in set(runs["arm"])):
        raise ValueError(f"baseline: expected one of {sorted(set(runs['arm']))}, got {baseline!r}.")
    measures = [name for name in MEASURES if name in runs]
    rows = []
    for (eps, arm), group in runs.groupby(["eps", "arm"], sort=False):
        row = {"eps": eps, "arm": arm, "seeds": len(group)}
        for name in measures:
            values = group[name].to_numpy() * 100
            spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
            row |= {f"{name}_mean": values.mean(), f"{name}_std": spread, f"{name}_ci": half_interval(values)}
            if baseline is not None and arm != baseline:
                other = runs[(runs["arm"] == baseline) & (runs["eps"] == eps)].set_index("seed")[name]
                paired = (group.set_index("seed")[name] - other).dropna().to_numpy() * 100
                row |= {f"{name}_diff": paired.mean() if len(paired) else math.nan}
                row |= {f"{name}_diff_ci": half_interval(paired)}
        for name in ("train_seconds", "judge_seconds"):
            row[name] = group[name].mean()
        rows.append(row)
    return pandas.DataFrame(rows)


def half_interval(values: np.ndarray) -> float:
    """Half the width of the 95 % confidence interval of the mean (Student's t); NaN for fewer than two values.

    :param values: One value per seed, ``(n,)``.
    """
    from scipy.stats import t

    if len(values) < 2:
        return math.nan
    return float(t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def cell(mean: float, spread: float) -> str:
    """``mean ± spread`` with one decimal; the mean alone where there is no spread, nothing where there is no mean.

    :param mean: The mean.
    :param spread: What follows the sign; NaN for none.
    """
    if math.isnan(mean):
        return ""
    return f"{mean:.1f}" if math.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"
