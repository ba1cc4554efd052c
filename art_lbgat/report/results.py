"""Natural and robust accuracy of each model, out of whichever table holds them, and the front of the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas

OVER_IMAGES = "95 % interval over images (Wilson)"
OVER_SEEDS = "95 % interval of the mean over seeds (Student's t)"
COLUMNS = [
    "model",
    "natural",
    "natural_low",
    "natural_high",
    "robust",
    "robust_low",
    "robust_high",
    "n",
    "n_natural",
    "flags",
    "ours",
]
EXPECTED = (
    "columns model, natural, robust (as BenchmarkResult.to_frame has them), or the table of evaluate (attack, "
    "accuracy, with a row 'natural' and another attack for each model), or that of summarize (arm, natural_mean, ...)"
)


class Results(NamedTuple):
    """What the page answers its question from.

    :param table: ``COLUMNS``, a row per model, most robust first; accuracies in [0, 1], NaN where there is none.
    :param attack: What ``robust`` was measured with, or an empty text.
    :param interval: What ``_low`` and ``_high`` are.
    """

    table: pandas.DataFrame
    attack: str
    interval: str


def as_results(table: Any, ours: Sequence[str] = ()) -> Results:
    """Natural and robust accuracy of each model.

    :param table: What :func:`~art_lbgat.evaluation.evaluate` gives (robust is its row ``"worst"``, else that of
        AutoAttack, else the lowest), ``BenchmarkResult.to_frame()`` (several of them concatenated), the table of
        :func:`~art_lbgat.study.summarize` (robust is AutoAttack's, else PGD-20's; columns ``n``, ``n_natural``
        and ``flags`` if there are such), or any with the columns ``model``,
        ``natural``, ``robust`` in [0, 1] and, if there are such, those of ``COLUMNS``.
    :param ours: Names of the models that the page is about; empty takes the column ``ours``, else none is.
    :raises TypeError: If it is no DataFrame.
    :raises ValueError: If it is another table, is empty, has a model twice or accuracies outside [0, 1].
    """
    import pandas

    if not isinstance(table, pandas.DataFrame):
        raise TypeError(f"results: expected a DataFrame with {EXPECTED}, got {type(table).__name__}.")
    if len(table) == 0:
        raise ValueError(f"results: expected {EXPECTED}, got no rows.")
    columns = set(table.columns)
    interval, attack = OVER_IMAGES, ""
    if {"attack", "accuracy"} <= columns:
        rows, attack = _of_evaluate(table)
    elif {"arm", "natural_mean"} <= columns and {"autoattack_mean", "pgd-20_mean"} & columns:
        rows, attack, interval = *_of_summary(table), OVER_SEEDS
    elif {"model", "natural", "robust"} <= columns:
        rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    else:
        raise ValueError(f"results: expected {EXPECTED}, got columns {sorted(map(str, columns))}.")
    made = pandas.DataFrame(rows)
    made = made.assign(**{name: math.nan for name in COLUMNS[1:9] if name not in made})
    if "flags" not in made:
        made["flags"] = ""
    made["ours"] = made["model"].isin(list(ours)) if ours or "ours" not in made else made["ours"].astype(bool)
    _check(made, ours)
    made = made.sort_values(["robust", "natural"], ascending=False, ignore_index=True, kind="stable")
    return Results(made[COLUMNS], attack, interval)


def pareto_front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices of the points that no other point is at least as good as in both and better in one, ``x`` rising.

    :param x: Larger is better; NaN is left out.
    :param y: Likewise.
    """
    order = sorted(
        (i for i in range(len(x)) if math.isfinite(x[i]) and math.isfinite(y[i])), key=lambda i: (-x[i], -y[i])
    )
    front: list[int] = []
    for i in order:
        if not front or y[i] > y[front[-1]]:
            front.append(i)
    return front[::-1]


def _of_evaluate(table: pandas.DataFrame) -> tuple[list[dict[str, Any]], str]:
    named = table if "model" in table else table.assign(model="model")
    rows, attacks = [], []
    for name, part in named.groupby("model", sort=False):
        natural, others = part[part["attack"] == "natural"], part[part["attack"] != "natural"]
        if len(natural) != 1 or len(others) == 0:
            raise ValueError(
                f"results: expected a row 'natural' and another attack for {name!r}, got {list(part.attack)}."
            )
        if len(set(others["eps"])) > 1:
            raise ValueError(f"results: expected one eps for {name!r}, got {sorted(set(others['eps']))}.")
        preferred = [others[others["attack"] == "worst"], others[others["attack"].str.startswith("autoattack")]]
        chosen = next((p for p in preferred if len(p)), others.nsmallest(1, "accuracy")).iloc[0]
        row: dict[str, Any] = {"model": name, "n": chosen["n"], "flags": chosen["flags"]}
        row["n_natural"] = natural["n"].iloc[0]
        for kind, found in (("natural", natural.iloc[0]), ("robust", chosen)):
            row |= {kind: found["accuracy"], f"{kind}_low": found["low"], f"{kind}_high": found["high"]}
        rows.append(row)
        norm = {"inf": "Linf", "2": "L2"}.get(str(chosen["norm"]), str(chosen["norm"]))
        attacks.append(f"{chosen['attack']}, {norm}, eps {chosen['eps']:.4g}")
    return rows, " / ".join(dict.fromkeys(attacks))


def _of_summary(table: pandas.DataFrame) -> tuple[list[dict[str, Any]], str]:
    robust = "autoattack" if "autoattack_mean" in table else "pgd-20"
    several, rows = len(set(table["eps"])) > 1, []
    for each in table.to_dict("records"):
        row: dict[str, Any] = {"model": f"{each['arm']}, eps {each['eps']:.4g}" if several else str(each["arm"])}
        for kind, source in (("natural", "natural"), ("robust", robust)):
            mean, half = each[f"{source}_mean"] / 100, each.get(f"{source}_ci", math.nan) / 100
            low, high = max(0.0, mean - half), min(1.0, mean + half)
            ends = (math.nan, math.nan) if math.isnan(half) else (low, high)
            row |= {kind: mean, f"{kind}_low": ends[0], f"{kind}_high": ends[1]}
        rows.append(row | {name: each[name] for name in ("n", "n_natural", "flags") if name in each})
    radius = "several eps" if several else f"eps {table['eps'].iloc[0]:.4g}"
    return rows, f"{'AutoAttack' if robust == 'autoattack' else 'PGD-20'}, {radius}"


def _check(made: pandas.DataFrame, ours: Sequence[str]) -> None:
    twice = sorted(map(str, made["model"][made["model"].duplicated()]))
    if twice:
        raise ValueError(f"results: expected each model once, got {twice} twice.")
    unknown = [name for name in ours if name not in set(made["model"])]
    if unknown:
        raise ValueError(f"ours: expected some of the models {list(made['model'])}, got {unknown}.")
    for kind in ("natural", "robust"):
        values = made[kind].astype(float)
        if not values.between(0, 1).all():
            raise ValueError(f"results: expected {kind} in [0, 1], got {values[~values.between(0, 1)].tolist()}.")
