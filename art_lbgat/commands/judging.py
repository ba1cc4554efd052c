"""Natural accuracy, PGD-20 and AutoAttack of a classifier, and the page about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_lbgat.checks import check_count
from art_lbgat.data import DataSet, balanced_order
from art_lbgat.evaluation import evaluate

if TYPE_CHECKING:
    import pandas
    from art.estimators.classification import PyTorchClassifier

_PAGE_IMAGES = 1000
_BOARDS = (("cifar10", "Linf"), ("cifar10", "L2"), ("cifar100", "Linf"))


@dataclass(frozen=True)
class Judging:
    """How a classifier is judged.

    :param eps: Radius.
    :param norm: ``"inf"`` or ``"2"``.
    :param attacks: What :func:`~art_lbgat.evaluation.evaluate` takes, but for AutoAttack where ``n_autoattack`` is set.
    :param n: Images, the same number of each class; None for all.
    :param n_autoattack: How many of them AutoAttack judges; 0 for none.
    :param batch_size: Images judged together.
    :param seed: Seed of every attack.
    :param part: ``"test"`` or ``"validation"``.
    """

    eps: float
    norm: str = "inf"
    attacks: Sequence[str] = ("natural", "pgd-20")
    n: int | None = None
    n_autoattack: int = 0
    batch_size: int = 250
    seed: int = 0
    part: str = "test"

    def __post_init__(self) -> None:
        if self.n is not None:
            check_count(self.n, "n")
        check_count(self.n_autoattack, "n_autoattack", minimum=0)
        check_count(self.batch_size, "batch_size")

    @property
    def settings(self) -> dict[str, Any]:
        """What ``evaluate`` takes."""
        norm = math.inf if self.norm == "inf" else 2
        return {"eps": self.eps, "norm": norm, "batch_size": self.batch_size, "seed": self.seed}


def images(data: DataSet, judging: Judging) -> tuple[Any, Any]:
    """The images that are judged, in an order in which every beginning has the same number of each class.

    :param data: The data set.
    :param judging: Which part, how many, and the seed of the order.
    """
    part = data.test_images if judging.part == "test" else data.validation_images
    x, y = part.subset(balanced_order(part.y, 0)[: judging.n]).arrays()
    return x, y


def judge(
    classifier: PyTorchClassifier | Mapping[str, PyTorchClassifier],
    x: Any,
    y: Any,
    judging: Judging,
    sources: Mapping[str, PyTorchClassifier] | None = None,
) -> pandas.DataFrame:
    """The table of :func:`~art_lbgat.evaluation.evaluate`, AutoAttack on fewer images where that is asked for.

    :param classifier: A classifier, or several by name.
    :param x: Raw natural inputs, ``(n, *input_shape)``.
    :param y: Labels as indices, ``(n,)``.
    :param judging: The attacks.
    :param sources: Where ``"transfer"`` takes its examples from.
    """
    import pandas

    tables = [evaluate(classifier, x, y, attacks=tuple(judging.attacks), sources=sources, **judging.settings)]
    if judging.n_autoattack:
        n = judging.n_autoattack
        tables.append(evaluate(classifier, x[:n], y[:n], attacks=("autoattack",), **judging.settings))
    return pandas.concat(tables, ignore_index=True)


def published_rows(data: str | None, norm: str) -> pandas.DataFrame | None:
    """RobustBench's leaderboard of a data set and norm, or None where there is none.

    :param data: Name of the data.
    :param norm: ``"inf"`` or ``"2"``.
    """
    threat_model = "Linf" if norm == "inf" else "L2"
    if (data, threat_model) not in _BOARDS:
        return None
    from art_lbgat.robustbench import leaderboard

    return leaderboard(str(data), threat_model)


def write_page(
    path: Path,
    classifier: PyTorchClassifier,
    x: Any,
    y: Any,
    judging: Judging,
    results: pandas.DataFrame,
    *,
    name: str,
    title: str,
    is_main: bool = True,
    notes: Sequence[str] = (),
    data: str | None = None,
    **more: Any,
) -> None:
    """The page about a classifier; its numbers are those of ``results``, its curves and pictures of some images.

    :param path: The HTML file.
    :param classifier: The classifier.
    :param x: Images.
    :param y: Labels.
    :param judging: How it was judged.
    :param results: The table of :func:`judge`.
    :param name: What the model is called.
    :param title: Title of the page.
    :param is_main: Whether this process writes; all processes have to come here, as attacks are shared.
    :param notes: Sentences below the answer.
    :param data: Name of the data; the leaderboard of RobustBench is drawn behind the results, if there is one.
    :param more: More of what :func:`~art_lbgat.report.evaluate_for_report` takes.
    """
    from art_lbgat.report import evaluate_for_report, write_report

    n = min(len(x), _PAGE_IMAGES)
    content = evaluate_for_report(
        classifier, x[:n], y[:n], name=name, title=title, attacks=("natural", "pgd-20"),
        leaderboard=published_rows(data, judging.norm), **judging.settings, **more,
    )  # fmt: skip
    named = results if "model" in results else results.assign(model=name)
    named = named[["model", *(column for column in named.columns if column != "model")]]
    content = replace(content, results=named, attacks=named, threat="", notes=notes)
    if is_main:
        write_report(path, content)
