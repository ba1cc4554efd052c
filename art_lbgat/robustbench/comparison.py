"""One result as a row of a leaderboard, and what is said about where it stands."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from art_lbgat.evaluation.results import Accuracy
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.standard import EPS, N_EXAMPLES, is_published_eps

if TYPE_CHECKING:
    import pandas

COLUMNS = ["model_id", "robust_acc", "clean_acc", "eps_measured", "architecture", "additional_data", "synthetic_images",
           "venue"]  # fmt: skip
"""What a row is compared by."""
_SHOWN = ["rank", "own", "model_id", "robust_acc", "clean_acc", "eps_measured", "architecture"]


@dataclass(frozen=True)
class Comparison:
    """The rank of a result, and the rows that it is best compared with.

    The frames have the columns ``rank`` (on the board with the result on it), ``own`` (True for the result itself),
    ``model_id``, ``robust_acc`` and ``clean_acc`` (percent), ``eps_measured``, ``architecture``, ``additional_data``,
    ``synthetic_images`` and ``venue``; each is sorted best first and holds the result's own row.

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
    around: pandas.DataFrame = field(compare=False, repr=False)
    same_architecture: pandas.DataFrame = field(compare=False, repr=False)
    same_data: pandas.DataFrame = field(compare=False, repr=False)

    @property
    def label(self) -> str:
        """``"like for like"``, or what differs from the board's standard."""
        return "not like for like: " + "; ".join(self.differences) if self.differences else "like for like"

    def to_frame(self) -> pandas.DataFrame:
        """One row: the ranks (over all, of the same architecture, of the same class of extra data) and the label."""
        import pandas

        same_architecture, same_data = place(self.same_architecture), place(self.same_data)
        row = {
            "model": self.model_name,
            "dataset": self.dataset,
            "threat_model": self.threat_model,
            "robust_acc": self.robust_acc,
            "rank": self.rank,
            "of": self.of,
            "best_rank": self.best_rank,
            "worst_rank": self.worst_rank,
            "rank_same_architecture": same_architecture,
            "of_same_architecture": len(self.same_architecture),
            "rank_same_data": same_data,
            "of_same_data": len(self.same_data),
            "label": self.label,
        }
        return pandas.DataFrame([row])

    def __str__(self) -> str:
        """The ranks, the label and the rows around, the result's own marked ``>``."""
        groups = (("of its architecture", self.same_architecture), ("of its extra data", self.same_data))
        within = ", ".join(f"{place(rows)} of {len(rows)} {name}" for name, rows in groups)
        shown = self.around[_SHOWN].copy()
        shown["own"] = [">" if own else "" for own in shown["own"]]
        return (
            f"{self.model_name}, {self.dataset} {self.threat_model}: robust {self.robust_acc:.2f} %, "
            f"rank {self.rank} of {self.of} ({self.best_rank} to {self.worst_rank} by the 95 % interval); {within}\n"
            f"{self.label}\n{shown.rename(columns={'own': ''}).to_string(index=False)}"
        )


def place(rows: pandas.DataFrame) -> int:
    """The rank of the row marked ``own`` among ``rows`` alone, 1 for the best.

    :param rows: Rows of a leaderboard with the columns ``own`` and ``rank``.
    """
    ranks = rows["rank"]
    return 1 + int((ranks < int(ranks[rows["own"]].iloc[0])).sum())


class Judged(NamedTuple):
    """A row to be ranked.

    :param row: The values of :data:`COLUMNS`.
    :param accuracy: Its robust accuracy, on as many samples as there were images.
    :param differences: What differs from the standard of the board.
    """

    row: dict[str, Any]
    accuracy: Accuracy
    differences: tuple[str, ...]


def published(board: pandas.DataFrame, model_id: str) -> Judged:
    """A row of the board itself.

    :param board: As ``leaderboard`` gives it.
    :param model_id: The id of the row.
    :return: Its own number, measured on as many images as the board asks for.
    :raises ValueError: If the board has no such row.
    """
    dataset, threat_model = str(board["dataset"].iloc[0]), str(board["threat_model"].iloc[0])
    row = next(iter(_records(board, model_id)), None)
    if row is None:
        raise ValueError(f"result: the leaderboard {dataset} {threat_model} has no row {model_id!r}.")
    found = _difference_in_eps(dataset, threat_model, row["eps_measured"])
    if row["unreliable"] is True:
        found = (*found, "AutoAttack raised a flag")
    n = N_EXAMPLES[dataset]
    accuracy = Accuracy(round(row["robust_acc"] / 100 * n), n)
    return Judged({name: row[name] for name in COLUMNS}, accuracy, found)


def measured(
    result: BenchmarkResult, board: pandas.DataFrame, additional_data: bool | None, synthetic_images: str | None
) -> Judged:
    """A result as a row of the board.

    :param result: The result, of the data set and threat model of the board.
    :param board: As ``leaderboard`` gives it.
    :param additional_data: Whether there was extra data; None is what the board says of this model, else False.
    :param synthetic_images: How many generated images there were; None is what the board says of this model, else none.
    :return: The row; accuracies in percent to two decimals.
    """
    if result.eps is not None and (
        result.robust.n != result.natural.n or result.robust.correct > result.natural.correct
    ):
        raise ValueError(
            f"result: robust {result.robust.correct} of {result.robust.n} and natural {result.natural.correct} of "
            f"{result.natural.n} are not of the same images, or more are robust than right."
        )
    if additional_data is not None and not isinstance(additional_data, bool):
        raise TypeError(f"additional_data: expected a bool or None, got {additional_data!r}.")
    if synthetic_images is not None and not isinstance(synthetic_images, str):
        raise TypeError(f"synthetic_images: expected a text such as '1M' or None, got {synthetic_images!r}.")
    known = next(iter(_records(board, result.model_name)), {})
    robust_acc = round(100 * result.robust.value, 2)
    row = {
        "model_id": result.model_name,
        "robust_acc": robust_acc,
        "clean_acc": round(100 * result.natural.value, 2),
        "eps_measured": math.nan if result.eps is None else result.eps,
        "architecture": result.architecture,
        "additional_data": known.get("additional_data", False) if additional_data is None else additional_data,
        "synthetic_images": known.get("synthetic_images", "") if synthetic_images is None else synthetic_images,
        "venue": known.get("venue", ""),
    }
    found = differences(result)
    if result.flags:
        found = (*found, f"AutoAttack raised a flag: {', '.join(result.flags)}")
    external = known.get("external", math.nan)
    if external < robust_acc:
        found = (*found, f"the board ranks this model by {external:.2f} % of an external evaluation")
    n = result.natural.n
    return Judged(row, Accuracy(round(result.robust.value * n), n), found)


def differences(result: BenchmarkResult) -> tuple[str, ...]:
    """How a result differs from RobustBench's standard: what it says itself, its radius and its number of images.

    :param result: Of one of the data sets of RobustBench.
    :return: Each difference once; empty if it is standard.
    """
    found = [*result.differences, *_difference_in_eps(result.dataset, result.threat_model, result.eps)]
    n, standard = result.natural.n, N_EXAMPLES[result.dataset]
    if n != standard:
        found.append(f"{n:,} images instead of {standard:,}")
    return tuple(dict.fromkeys(found))  # a benchmark says the same in the same words


def architecture_key(name: str) -> str:
    """What is the same for two spellings of an architecture, such as ``"wrn-34-10"`` and ``"WideResNet-34-10"``.

    :param name: As it is written somewhere.
    """
    plain = re.sub(r"(?<![0-9])[^a-z0-9]+|[^a-z0-9]+(?![0-9])", "", name.lower())
    return re.sub(r"^wrn(?=\d)", "wideresnet", plain)


def _records(board: pandas.DataFrame, model_id: str) -> list[dict[str, Any]]:
    rows = board[board["model_id"] == model_id]
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _difference_in_eps(dataset: str, threat_model: str, eps: float | None) -> tuple[str, ...]:
    standard = EPS.get((dataset, threat_model))
    if standard is None or is_published_eps(dataset, threat_model, eps):
        return ()
    return (f"eps {'None' if eps is None else f'{eps:.6g}'} instead of {standard.text}",)
