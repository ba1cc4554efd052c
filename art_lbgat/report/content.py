"""What a page is made of: tables and arrays as the rest of the package returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from art_lbgat.checks import as_array, check_indices, check_kind, check_text
from art_lbgat.report.results import as_results

if TYPE_CHECKING:
    import pandas

    from art_lbgat.robustbench import Comparison

MAX_PICTURES = 12
_CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images beside their adversarial examples.

    :param x: Natural images, ``(n, C, H, W)`` with 1 or 3 channels, ``1 <= n <= 12``.
    :param x_adv: Adversarial ones, of the same shape.
    :param y: Class indices, ``(n,)``.
    :param predicted: What the model says of ``x``, ``(n,)``.
    :param predicted_adv: What it says of ``x_adv``, ``(n,)``.
    :param class_names: A name for each class; empty writes the indices.
    :param clip_values: Range of the images, two numbers.
    :param model: Whose predictions they are.
    :param attack: How ``x_adv`` was made, with its radius.
    """

    x: Any
    x_adv: Any
    y: Any
    predicted: Any
    predicted_adv: Any
    class_names: Sequence[str] = ()
    clip_values: tuple[float, float] = (0.0, 1.0)
    model: str = ""
    attack: str = ""

    def __post_init__(self) -> None:
        shape = as_array(self.x, "pictures.x").shape
        if len(shape) != 4 or shape[1] not in _CHANNELS or not 1 <= shape[0] <= MAX_PICTURES:
            raise ValueError(
                f"pictures.x: expected (n, C, H, W) with 1 or 3 channels and n in [1, {MAX_PICTURES}], got shape "
                f"{shape}."
            )
        if as_array(self.x_adv, "pictures.x_adv").shape != shape:
            raise ValueError(f"pictures.x_adv: expected shape {shape}, got {np.shape(self.x_adv)}.")
        for name in ("x", "x_adv"):
            if not np.isfinite(as_array(getattr(self, name), f"pictures.{name}")).all():
                raise ValueError(f"pictures.{name}: expected finite values, got NaN or Inf.")
        for name in ("y", "predicted", "predicted_adv"):
            found = check_indices(getattr(self, name), f"pictures.{name}")
            if len(found) != shape[0] or found.min() < 0:
                raise ValueError(f"pictures.{name}: expected {shape[0]} class indices >= 0, got {found.tolist()}.")
            if self.class_names and found.max() >= len(self.class_names):
                raise ValueError(
                    f"pictures.class_names: expected a name for each class, got {len(self.class_names)} names and "
                    f"class {found.max()} in {name}."
                )
        low, high = self.clip_values
        if not low < high:
            raise ValueError(f"pictures.clip_values: expected (low, high) with low < high, got {self.clip_values}.")


@dataclass(frozen=True, eq=False)
class ReportContent:
    """What a page says. Whatever is None or empty has no section.

    :param title: Title of the page.
    :param results: Natural and robust accuracy of each model: any table that :func:`art_lbgat.report.as_results` takes.
    :param ours: Names of the models that the page is about; the others are baselines. Empty as in ``as_results``.
    :param threat: What ``robust`` was measured with, such as ``"AutoAttack (standard), Linf, eps 8/255"``; empty takes
        what the table says.
    :param attacks: All attacks, as :func:`~art_lbgat.evaluation.evaluate` gives them.
    :param leaderboard: The table of :func:`~art_lbgat.robustbench.leaderboard` to be drawn behind the results.
    :param comparison: Where a result stands on it: :func:`~art_lbgat.robustbench.compare`.
    :param history: ``trainer.history``, or several by name.
    :param curve: The table of :func:`~art_lbgat.evaluation.robustness_curve`.
    :param per_class: Columns ``class`` and any of ``model``, ``n``, ``natural``, ``robust`` (in [0, 1]),
        ``attack``.
    :param pictures: Images and adversarial examples.
    :param slices: The table of :func:`~art_lbgat.diagnostics.decision_slices`.
    :param class_names: A name for each class of ``slices`` and ``per_class``; empty writes the indices.
    :param sanity: The table of :func:`~art_lbgat.evaluation.sanity_checks`.
    :param notes: Sentences below the answer, such as what the numbers are means of.
    :param provenance: Texts, lists and mappings by name: versions, hashes, configuration; ``"commands"`` is a list.
    :raises TypeError: A field of another type.
    :raises ValueError: A table without the columns that are drawn.
    """

    title: str
    results: pandas.DataFrame
    ours: Sequence[str] = ()
    threat: str = ""
    attacks: pandas.DataFrame | None = None
    leaderboard: pandas.DataFrame | None = None
    comparison: Comparison | None = None
    history: pandas.DataFrame | Mapping[str, pandas.DataFrame] | None = None
    curve: pandas.DataFrame | None = None
    per_class: pandas.DataFrame | None = None
    pictures: Pictures | None = None
    slices: pandas.DataFrame | None = None
    class_names: Sequence[str] = ()
    sanity: pandas.DataFrame | None = None
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text(self.title, "title")
        check_text(self.threat, "threat")
        for name in ("ours", "notes"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected a sequence of texts, got the text {getattr(self, name)!r}.")
        as_results(self.results, self.ours)
        needed = {
            "attacks": ("attack", "accuracy"),
            "leaderboard": ("model_id", "clean_acc", "robust_acc", "dataset", "threat_model"),
            "curve": ("eps", "accuracy"),
            "per_class": ("class",),
            "slices": ("model", "u", "v", "predicted", "confidence"),
            "sanity": ("check", "passed"),
        }
        for name, columns in needed.items():
            if getattr(self, name) is not None:
                _check_table(getattr(self, name), name, columns)
        for name, frame in self.histories.items():
            _check_table(frame, f"history[{name!r}]", ("epoch",))
        if self.pictures is not None:
            check_kind(self.pictures, "pictures", Pictures)
        if not isinstance(self.provenance, Mapping):
            raise TypeError(f"provenance: expected a mapping, got {type(self.provenance).__name__}.")

    @property
    def histories(self) -> dict[str, pandas.DataFrame]:
        """The histories by name; a single one has the name of the one model of ours, if there is one."""
        if self.history is None:
            return {}
        if isinstance(self.history, Mapping):
            return {str(name): frame for name, frame in self.history.items()}
        table = as_results(self.results, self.ours).table
        names = list(table["model"][table["ours"]]) if table["ours"].any() else list(table["model"])
        return {str(names[0]) if len(names) == 1 else "training": self.history}


def class_title(index: Any, class_names: Sequence[str]) -> str:
    """The name of a class, or its index where it has none.

    :param index: The class.
    :param class_names: A name for each class, or none.
    """
    known = isinstance(index, (int, np.integer)) and 0 <= index < len(class_names)
    return str(class_names[index]) if known else str(index)


def _check_table(frame: Any, name: str, columns: Sequence[str]) -> None:
    import pandas

    if not isinstance(frame, pandas.DataFrame):
        raise TypeError(f"{name}: expected a DataFrame, got {type(frame).__name__}.")
    missing = [column for column in columns if column not in frame]
    if missing or len(frame) == 0:
        found = f"no columns {missing}" if missing else "no rows"
        raise ValueError(f"{name}: expected a table with the columns {list(columns)}, got {found}.")
