"""RobustBench's leaderboards, and where a result would stand on them.

The facts are those of 236 published rows, kept in ``leaderboard.csv`` beside this file. Accuracies of a board are
percent, as published. A board ranks by robust accuracy: the number of an external evaluation where there is one, else
that of AutoAttack.
"""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING

from art_lbgat.checks import check_count, check_text
from art_lbgat.robustbench.comparison import COLUMNS, Comparison, architecture_key, measured, published
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.standard import NORMS

if TYPE_CHECKING:
    import pandas

_NUMBERS = ("eps", "footnote_eps", "clean_acc", "autoattack_acc", "external", "corruptions_acc", "corruptions_mce",
            "corruptions_acc_3d", "corruptions_mce_3d")  # fmt: skip
_FLAGS = ("additional_data", "unreliable", "in_model_zoo")


def leaderboard(dataset: str = "cifar10", threat_model: str = "Linf") -> pandas.DataFrame:
    """One leaderboard, best first.

    ``rank`` is 1 + the number of rows that are strictly better: equal numbers share the better rank and the next one is
    left out; they are in order of their ids. ``robust_acc`` is what the board ranks by: ``external`` if present, else
    ``autoattack_acc``; for corruptions ``corruptions_acc`` or ``corruptions_acc_3d``. ``eps_measured`` is the radius
    that it was truly measured at, which for some rows only the footnote tells (``footnote_eps``): the LBGAT rows at
    0.031 rather than 8/255. It is missing for corruptions, where ``eps`` is at most what was trained with.

    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"``.
    :return: A row per model: ``rank``, ``model_id``, ``robust_acc``, ``eps_measured``, then all facts. Accuracies are
        percent, ``additional_data``, ``in_model_zoo`` and ``unreliable`` nullable booleans, texts ``""`` where there is
        none; ``reported`` is a text, since authors claim what they like.
    :raises ValueError: If there is no such leaderboard; those that there are are named.
    """
    if not isinstance(dataset, str) or not isinstance(threat_model, str):
        raise TypeError(f"dataset, threat_model: expected texts, got {dataset!r} and {threat_model!r}.")
    rows = _read()
    column = "corruptions_acc" + threat_model.removeprefix("corruptions")
    folder = "corruptions" if threat_model == "corruptions_3d" else threat_model
    rows = rows[(rows["dataset"] == dataset) & (rows["threat_model"] == folder)]
    robust = rows["external"].fillna(rows["autoattack_acc"]) if threat_model in NORMS else rows.get(column)
    if robust is None or robust.notna().sum() == 0:
        raise ValueError(
            f"dataset, threat_model: RobustBench has no leaderboard for {dataset!r} and {threat_model!r}; "
            f"expected one of {_boards()}."
        )
    eps = rows["footnote_eps"].fillna(rows["eps"]) if threat_model in NORMS else math.nan
    rows = rows.assign(robust_acc=robust, eps_measured=eps, threat_model=threat_model)
    return _ranked(rows[robust.notna()])


def compare(
    result: BenchmarkResult | str,
    dataset: str | None = None,
    threat_model: str | None = None,
    *,
    n_rows: int = 10,
    additional_data: bool | None = None,
    synthetic_images: str | None = None,
) -> Comparison:
    """Where a result stands, or would stand, on its leaderboard.

    A result whose ``model_name`` is an id of the board takes the place of that row, any other is one row more. Its
    accuracy is rounded to two decimals of a percent, as all on the board are, so one that equals a published number
    gets the rank of that row.

    ``best_rank`` and ``worst_rank`` take the other rows as exact and the images of the result as drawn anew (for
    corruptions each image once: its kinds and severities are not independent). They say how far a number of so many
    images can be trusted, not how models differ on one and the same test set.

    :param result: A result, or the id of a published row (which then is compared at its own number).
    :param dataset: With an id, the board's; else the result's own, which is what None means.
    :param threat_model: Likewise.
    :param n_rows: How many other rows ``around`` holds, half of them above while there are as many.
    :param additional_data: Whether a result's model was trained with extra data. None is what the board says about its
        ``model_name``, else False. A published row keeps its own.
    :param synthetic_images: How many generated images it was trained with, such as ``"1M"``; ``""`` is none. None as
        for ``additional_data``.
    :return: The rank, the rows to compare with and, as a label, what differs from the board.
    :raises ValueError: If there is no such board, it is not that of the result, the result has no radius where the
        board has one (or one where it has none), or no row has that id.
    """
    n_rows = check_count(n_rows, "n_rows")
    for name, value in (("dataset", dataset), ("threat_model", threat_model)):
        if value is not None:
            check_text(value, name)
    if isinstance(result, str):
        board = leaderboard("cifar10" if dataset is None else dataset, "Linf" if threat_model is None else threat_model)
        judged = published(board, result)
    elif not hasattr(result, "natural"):
        raise TypeError(f"result: expected a BenchmarkResult or the id of a model, got {type(result).__name__}.")
    else:
        board = _board_of(result, dataset, threat_model)
        judged = measured(result, board, additional_data, synthetic_images)
    import pandas

    own = judged.row["model_id"]
    others = board.loc[board["model_id"] != own, COLUMNS].assign(own=False)
    rows = _ranked(pandas.concat([others, pandas.DataFrame([{**judged.row, "own": True}])])[[*COLUMNS, "own"]])
    at = int(rows.index[rows["own"]][0])
    first = max(0, min(at - n_rows // 2, len(rows) - n_rows - 1))
    worst, best = (1 + int((others["robust_acc"] > round(100 * end, 2)).sum()) for end in judged.accuracy.interval)
    name = architecture_key(judged.row["architecture"])
    synthetic = rows["synthetic_images"] != ""
    return Comparison(
        model_name=own,
        dataset=str(board["dataset"].iloc[0]),
        threat_model=str(board["threat_model"].iloc[0]),
        robust_acc=judged.row["robust_acc"],
        rank=int(rows["rank"].iloc[at]),
        of=len(rows),
        best_rank=best,
        worst_rank=worst,
        differences=judged.differences,
        around=rows.iloc[first : first + n_rows + 1],
        same_architecture=rows[[architecture_key(each) == name for each in rows["architecture"]]],
        same_data=rows[
            (rows["additional_data"] == rows["additional_data"].iloc[at]) & (synthetic == synthetic.iloc[at])
        ],
    )


def _read() -> pandas.DataFrame:
    """The published rows, facts in sensible types."""
    import pandas

    with files(__package__).joinpath("leaderboard.csv").open(encoding="utf-8") as file:
        rows = pandas.read_csv(file, dtype=str, keep_default_na=False).astype(object)
    for column in _NUMBERS:
        rows[column] = pandas.to_numeric(rows[column].replace("", None)).astype(float)
    for column in _FLAGS:
        rows[column] = rows[column].map({"true": True, "false": False, "": None}).astype("boolean")
    return rows.astype({"number_forward_passes": int})


def _boards() -> list[str]:
    rows = _read()
    found = [
        f"{dataset} {threat}" for dataset, threat in rows[["dataset", "threat_model"]].drop_duplicates().to_numpy()
    ]
    with_3d = rows.loc[rows["corruptions_acc_3d"].notna(), "dataset"].unique()
    return sorted([*found, *(f"{dataset} corruptions_3d" for dataset in with_3d)])


def _ranked(rows: pandas.DataFrame) -> pandas.DataFrame:
    """``rows`` by ``robust_acc``, best first, with ``rank`` in front and a new index."""
    rows = rows.sort_values(["robust_acc", "model_id"], ascending=[False, True], ignore_index=True)
    rank = rows["robust_acc"].rank(ascending=False, method="min").astype(int)
    front = ["model_id", "robust_acc", "eps_measured"]
    rest = [column for column in rows.columns if column not in front]
    return rows.assign(rank=rank)[["rank", *front, *rest]]


def _board_of(result: BenchmarkResult, dataset: str | None, threat_model: str | None) -> pandas.DataFrame:
    for name, asked, own in (("dataset", dataset, result.dataset), ("threat_model", threat_model, result.threat_model)):
        if asked not in (None, own):
            raise ValueError(f"{name}: the result was measured on {own!r}, so it stands on no board of {asked!r}.")
    board = leaderboard(result.dataset, result.threat_model)
    if result.threat_model in NORMS and not (result.eps is not None and 0 < result.eps < math.inf):
        raise ValueError(f"result: expected eps > 0 to compare it under {result.threat_model}, got eps={result.eps}.")
    if result.threat_model not in NORMS and result.eps is not None:
        raise ValueError(f"result: expected eps=None under {result.threat_model}, got eps={result.eps:g}.")
    return board
