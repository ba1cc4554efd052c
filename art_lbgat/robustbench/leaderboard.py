"""RobustBench's leaderboards (236 published rows in ``leaderboard.csv``), and where a result would stand on them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pandas as pd

from art_lbgat.checks import check_count, check_flag, check_text
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.robustbench.result import N_EXAMPLES, NORMS, BenchmarkResult, differences_from_standard

# What a row is compared by, and what a comparison prints.
_COLUMNS = ["model_id", "robust_acc", "clean_acc", "eps_measured", "architecture", "additional_data",
            "synthetic_images", "venue"]  # fmt: skip
_SHOWN = ["rank", "own", "model_id", "robust_acc", "clean_acc", "eps_measured", "architecture"]
_NUMBERS = ("eps", "footnote_eps", "clean_acc", "autoattack_acc", "external", "corruptions_acc", "corruptions_mce",
            "corruptions_acc_3d", "corruptions_mce_3d")  # fmt: skip
_FLAGS = ("additional_data", "unreliable", "in_model_zoo")


def leaderboard(dataset: str = "cifar10", threat_model: str = "Linf") -> pd.DataFrame:
    """One leaderboard, best first.

    ``rank`` is 1 + the number of rows that are strictly better: equal numbers share the better rank, in order of their
    ids. ``robust_acc`` is what the board ranks by: ``external`` if present, else ``autoattack_acc``; for corruptions
    ``corruptions_acc`` or ``corruptions_acc_3d``. ``eps_measured`` is the true radius, which for some rows only the
    footnote tells (``footnote_eps``): the LBGAT rows at 0.031, not 8/255; it is missing for corruptions.

    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"``.
    :return: A row per model: ``rank``, ``model_id``, ``robust_acc``, ``eps_measured``, then all facts. Accuracies are
        percent, booleans nullable, texts (``reported`` too) ``""`` where there is none.
    :raises ValueError: If there is no such leaderboard; those that there are are named.
    """
    if not isinstance(dataset, str) or not isinstance(threat_model, str):
        raise TypeError(f"dataset, threat_model: expected texts, got {dataset!r} and {threat_model!r}.")
    every = _read()
    column = "corruptions_acc" + threat_model.removeprefix("corruptions")
    folder = "corruptions" if threat_model == "corruptions_3d" else threat_model
    rows = every[(every["dataset"] == dataset) & (every["threat_model"] == folder)]
    robust = rows["external"].fillna(rows["autoattack_acc"]) if threat_model in NORMS else rows.get(column)
    if robust is None or robust.notna().sum() == 0:
        boards = every["dataset"] + " " + every["threat_model"]
        boards_3d = every.loc[every["corruptions_acc_3d"].notna(), "dataset"] + " corruptions_3d"
        raise ValueError(
            f"dataset, threat_model: RobustBench has no leaderboard for {dataset!r} and {threat_model!r}; "
            f"expected one of {sorted({*boards, *boards_3d})}."
        )
    eps = rows["footnote_eps"].fillna(rows["eps"]) if threat_model in NORMS else math.nan
    rows = rows.assign(robust_acc=robust, eps_measured=eps, threat_model=threat_model)
    return _ranked(rows[robust.notna()])


@dataclass(frozen=True)
class Comparison:
    """The rank of a result, and the rows that it is best compared with.

    The frames are sorted best first, hold the result's own row (``own``) and have ``rank`` on the board with it,
    ``model_id``, ``robust_acc`` and ``clean_acc`` (percent), and what tells the models apart.

    :param model_name: The model that is ranked.
    :param dataset: The data set of the board.
    :param threat_model: The threat model of the board.
    :param robust_acc: What it is ranked by, percent to two decimals as the board writes it.
    :param rank: 1 + the number of other rows that are strictly better, so equal numbers share the better rank.
    :param of: Rows of the board with the result on it.
    :param best_rank: The rank at the upper end of the 95 % interval of the robust accuracy.
    :param worst_rank: The rank at its lower end.
    :param differences: What keeps it from being like for like; empty if nothing does.
    :param around: The rows nearest in rank.
    :param same_architecture: The rows of the same architecture.
    :param same_data: The rows of the same class of extra data: ``additional_data`` alike, and synthetic images or none.
    """

    model_name: str
    dataset: str
    threat_model: str
    robust_acc: float
    rank: int
    of: int
    best_rank: int
    worst_rank: int
    differences: tuple[str, ...]
    around: pd.DataFrame = field(compare=False, repr=False)
    same_architecture: pd.DataFrame = field(compare=False, repr=False)
    same_data: pd.DataFrame = field(compare=False, repr=False)

    @property
    def label(self) -> str:
        """``"like for like"``, or what differs from the board's standard."""
        return "not like for like: " + "; ".join(self.differences) if self.differences else "like for like"

    def to_frame(self) -> pd.DataFrame:
        """One row: the ranks (over all, of the same architecture, of the same class of extra data) and the label."""
        names = ("dataset", "threat_model", "robust_acc", "rank", "of", "best_rank", "worst_rank")
        row = {"model": self.model_name, **{name: getattr(self, name) for name in names}}
        for name in ("same_architecture", "same_data"):
            rows = getattr(self, name)
            row |= {f"rank_{name}": _place(rows), f"of_{name}": len(rows)}
        return pd.DataFrame([{**row, "label": self.label}])

    def __str__(self) -> str:
        """The ranks, the label and the rows around, the result's own marked ``>``."""
        groups = (("of its architecture", self.same_architecture), ("of its extra data", self.same_data))
        within = ", ".join(f"{_place(rows)} of {len(rows)} {name}" for name, rows in groups)
        shown = self.around[_SHOWN].copy()
        shown["own"] = [">" if own else "" for own in shown["own"]]
        return (
            f"{self.model_name}, {self.dataset} {self.threat_model}: robust {self.robust_acc:.2f} %, "
            f"rank {self.rank} of {self.of} ({self.best_rank} to {self.worst_rank} by the 95 % interval); {within}\n"
            f"{self.label}\n{shown.rename(columns={'own': ''}).to_string(index=False)}"
        )


def _place(rows: pd.DataFrame) -> int:
    """The rank of the row marked ``own`` among these rows alone, 1 for the best."""
    ranks = rows["rank"]
    return 1 + int((ranks < int(ranks[rows["own"]].iloc[0])).sum())


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

    A result whose ``model_name`` is an id of the board takes the place of that row, any other is one row more, with its
    accuracy rounded as on the board. ``best_rank`` and ``worst_rank`` take the other rows as exact and the images of
    the result as drawn anew (for corruptions each image once), so they say how far a number of so many images can be
    trusted, not how models differ on one test set.

    :param result: A result, or the id of a published row (which then is compared at its own number).
    :param dataset: With an id, the board's; else the result's own, which is what None means.
    :param threat_model: Likewise.
    :param n_rows: How many other rows ``around`` holds, half of them above while there are as many.
    :param additional_data: Whether a result's model had extra data; None is what the board says of its name, or False.
    :param synthetic_images: How many generated images it had, such as ``"1M"``, ``""`` for none; None likewise.
    :return: The rank, the rows to compare with and, as a label, what differs from the board.
    """
    check_count(n_rows, "n_rows")
    for name, value in (("dataset", dataset), ("threat_model", threat_model), ("synthetic_images", synthetic_images)):
        if value is not None:
            check_text(value, name)
    if additional_data is not None:
        check_flag(additional_data, "additional_data")
    if isinstance(result, str):
        board = leaderboard("cifar10" if dataset is None else dataset, "Linf" if threat_model is None else threat_model)
        return _placed(board, *_published(board, result), n_rows)
    if not hasattr(result, "natural"):
        raise TypeError(f"result: expected a BenchmarkResult or the id of a model, got {type(result).__name__}.")
    for name, asked, own in (("dataset", dataset, result.dataset), ("threat_model", threat_model, result.threat_model)):
        if asked not in (None, own):
            raise ValueError(f"{name}: the result was measured on {own!r}, so it stands on no board of {asked!r}.")
    board = leaderboard(result.dataset, result.threat_model)
    return _placed(board, *_measured(result, board, additional_data, synthetic_images), n_rows)


def _published(board: pd.DataFrame, model_id: str) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """A row of the board itself, the number of images, and how it is not standard."""
    dataset, threat_model = board[["dataset", "threat_model"]].iloc[0]
    row = _facts(board, model_id)
    if not row:
        raise ValueError(f"result: the leaderboard {dataset} {threat_model} has no row {model_id!r}.")
    n = N_EXAMPLES[dataset]
    differences = differences_from_standard(dataset, threat_model, row["eps_measured"], n)
    if row["unreliable"] is True:
        differences += ("AutoAttack raised a flag",)
    return {name: row[name] for name in _COLUMNS}, n, differences


def _measured(
    result: BenchmarkResult, board: pd.DataFrame, additional_data: bool | None, synthetic_images: str | None
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """A result as a row of the board, accuracies in percent to two decimals; otherwise as :func:`_published`."""
    known = _facts(board, result.model_name)
    row = {
        "model_id": result.model_name,
        "robust_acc": round(100 * result.robust.value, 2),
        "clean_acc": round(100 * result.natural.value, 2),
        "eps_measured": math.nan if result.eps is None else result.eps,
        "architecture": result.architecture,
        "additional_data": known.get("additional_data", False) if additional_data is None else additional_data,
        "synthetic_images": known.get("synthetic_images", "") if synthetic_images is None else synthetic_images,
        "venue": known.get("venue", ""),
    }
    differences = result.differences
    if result.flags:
        differences += (f"AutoAttack raised a flag: {', '.join(result.flags)}",)
    external = known.get("external", math.nan)
    if external < row["robust_acc"]:
        differences += (f"the board ranks this model by {external:.2f} % of an external evaluation",)
    return row, result.natural.n, differences


def _facts(board: pd.DataFrame, model_id: str) -> dict[str, Any]:
    """The row of a model, empty if there is none."""
    rows = board[board["model_id"] == model_id].to_dict("records")
    return {str(name): value for row in rows[:1] for name, value in row.items()}


def _placed(board: pd.DataFrame, row: dict[str, Any], n: int, differences: tuple[str, ...], n_rows: int) -> Comparison:
    """A row, measured on ``n`` images, among the others of the board."""
    others = board.loc[board["model_id"] != row["model_id"], _COLUMNS].assign(own=False)
    rows = _ranked(pd.concat([others, pd.DataFrame([{**row, "own": True}])])[[*_COLUMNS, "own"]])
    at = int(rows.index[rows["own"]][0])
    first = max(0, min(at - n_rows // 2, len(rows) - n_rows - 1))
    interval = Accuracy(round(row["robust_acc"] / 100 * n), n).interval
    worst, best = (1 + int((others["robust_acc"] > round(100 * end, 2)).sum()) for end in interval)
    architectures, synthetic = rows["architecture"].map(architecture_key), rows["synthetic_images"] != ""
    same_data = (rows["additional_data"] == rows["additional_data"].iloc[at]) & (synthetic == synthetic.iloc[at])
    return Comparison(
        model_name=row["model_id"],
        dataset=str(board["dataset"].iloc[0]),
        threat_model=str(board["threat_model"].iloc[0]),
        robust_acc=row["robust_acc"],
        rank=int(rows["rank"].iloc[at]),
        of=len(rows),
        best_rank=best,
        worst_rank=worst,
        differences=differences,
        around=rows.iloc[first : first + n_rows + 1],
        same_architecture=rows[architectures == architectures.iloc[at]],
        same_data=rows[same_data],
    )


def architecture_key(name: str) -> str:
    """What is the same for two spellings of an architecture, such as ``"wrn-34-10"`` and ``"WideResNet-34-10"``."""
    plain = re.sub(r"(?<![0-9])[^a-z0-9]+|[^a-z0-9]+(?![0-9])", "", name.lower())
    return re.sub(r"^wrn(?=\d)", "wideresnet", plain)


def _read() -> pd.DataFrame:
    """The published rows, facts in sensible types."""
    with files(__package__).joinpath("leaderboard.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False).astype(object)
    for column in _NUMBERS:
        rows[column] = pd.to_numeric(rows[column].replace("", None)).astype(float)
    for column in _FLAGS:
        rows[column] = rows[column].map({"true": True, "false": False, "": None}).astype("boolean")
    return rows.astype({"number_forward_passes": int})


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` by ``robust_acc``, best first, with ``rank`` in front and a new index."""
    rows = rows.sort_values(["robust_acc", "model_id"], ascending=[False, True], ignore_index=True)
    rank = rows["robust_acc"].rank(ascending=False, method="min").astype(int)
    front = ["model_id", "robust_acc", "eps_measured"]
    rest = [column for column in rows.columns if column not in front]
    return rows.assign(rank=rank)[["rank", *front, *rest]]
