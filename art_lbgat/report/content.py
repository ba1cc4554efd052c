"""What a page says: natural and robust accuracy out of any table, and everything else as the package returns it."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

import art_lbgat
from art_lbgat.checks import (
    as_array,
    check_count,
    check_indices,
    check_kind,
    check_labels,
    check_number,
    check_text,
)
from art_lbgat.data import balanced_order
from art_lbgat.diagnostics import decision_slices
from art_lbgat.diagnostics.plots import class_title
from art_lbgat.evaluation import robustness_curve, sanity_checks
from art_lbgat.evaluation.attacks import Threat, check_threat, make_examples, plan_attacks, verify
from art_lbgat.evaluation.autoattack import unless_unbounded
from art_lbgat.evaluation.results import Row, as_table, check_columns, norm_name, paired_difference
from art_lbgat.evaluation.subject import Subject, make_subject, predict
from art_lbgat.evaluation.suite import DEFAULT, run_suite
from art_lbgat.fingerprint import sha256_of, weights_sha256

if TYPE_CHECKING:
    from art_lbgat.robustbench import Comparison

MAX_PICTURES = 12
NORMS = {"inf": "Linf", "2": "L2"}
_ACCURACIES = ["natural", "natural_low", "natural_high", "robust", "robust_low", "robust_high", "n", "n_natural"]
_EXPECTED = (
    "columns model, natural, robust (as BenchmarkResult.to_frame has them), or the table of evaluate (attack, "
    "accuracy, with a row 'natural' and another attack for each model), or that of summarize (arm, natural_mean, ...)"
)
_TABLES = {
    "attacks": ("evaluate", ("attack", "accuracy")),
    "leaderboard": ("leaderboard", ("model_id", "clean_acc", "robust_acc", "dataset", "threat_model")),
    "curve": ("robustness_curve", ("eps", "accuracy")),
    "per_class": ("accuracies per class", ("class",)),
    "slices": ("decision_slices", ("model", "u", "v", "predicted", "confidence")),
    "sanity": ("sanity_checks", ("check", "passed")),
    "differences": ("paired differences", ("model", "other", "kind", "value", "low", "high", "seeds", "real")),
}
_PICTURED = "pgd-20"
_LIBRARIES = ("adversarial-robustness-toolbox", "torch", "torchvision", "numpy", "pandas", "pyautoattack",
              "robustbench")  # fmt: skip


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
        if len(shape) != 4 or shape[1] not in (1, 3) or not 1 <= shape[0] <= MAX_PICTURES:
            expected = f"(n, C, H, W) with 1 or 3 channels and n in [1, {MAX_PICTURES}]"
            raise ValueError(f"pictures.x: expected {expected}, got shape {shape}.")
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
                names = f"{len(self.class_names)} names and class {found.max()} in {name}"
                raise ValueError(f"pictures.class_names: expected a name for each class, got {names}.")
        low, high = self.clip_values
        if not low < high:
            raise ValueError(f"pictures.clip_values: expected (low, high) with low < high, got {self.clip_values}.")


@dataclass(frozen=True, eq=False)
class ReportContent:
    """What a page says. Whatever is None or empty has no section.

    :param title: Title of the page.
    :param results: Natural and robust accuracy of each model: any table that :func:`art_lbgat.report.as_results` takes.
    :param ours: Names of the models that the page is about; the others are baselines. Empty as in ``as_results``.
    :param threat: What ``robust`` was measured with; empty takes what the table says.
    :param attacks: All attacks, as :func:`~art_lbgat.evaluation.evaluate` gives them.
    :param leaderboard: The table of :func:`~art_lbgat.robustbench.leaderboard` to be drawn behind the results.
    :param comparison: Where a result stands on it: :func:`~art_lbgat.robustbench.compare`.
    :param history: ``trainer.history``, or several by name.
    :param curve: The table of :func:`~art_lbgat.evaluation.robustness_curve`.
    :param per_class: Columns ``class`` and any of ``model``, ``n``, ``natural``, ``robust`` (in [0, 1]), ``attack``.
    :param pictures: Images and adversarial examples.
    :param slices: The table of :func:`~art_lbgat.diagnostics.decision_slices`.
    :param class_names: A name for each class of ``slices`` and ``per_class``; empty writes the indices.
    :param sanity: The table of :func:`~art_lbgat.evaluation.sanity_checks`.
    :param differences: Of one model to others, on the same images and seeds: columns ``model``, ``other``, ``kind``
        (``"natural"`` or ``"robust"``), and the fields of :class:`~art_lbgat.evaluation.Difference` with ``real``.
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
    differences: pandas.DataFrame | None = None
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text(self.title, "title")
        check_text(self.threat, "threat")
        for name in ("ours", "notes"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected a sequence of texts, got the text {getattr(self, name)!r}.")
        as_results(self.results, self.ours)
        tables = [(getattr(self, name), name, *known) for name, known in _TABLES.items()]
        tables += [(each, f"history[{name!r}]", "trainer.history", ("epoch",)) for name, each in self.histories.items()]
        for table, name, source, columns in tables:
            if table is not None:
                check_columns(table, name, source, columns)
                if table.empty:
                    raise ValueError(f"{name}: expected the table of {source}, got no rows.")
        if self.pictures is not None:
            check_kind(self.pictures, "pictures", Pictures)
        check_kind(self.provenance, "provenance", Mapping)  # type: ignore[type-abstract]

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


class Results(NamedTuple):
    """What the page answers its question from.

    :param table: Columns ``model``, ``natural``, ``robust``, each with ``_low`` and ``_high``, ``n``, ``n_natural``,
        ``flags`` and ``ours``; a row per model, most robust first; accuracies in [0, 1], NaN where there is none.
    :param attack: What ``robust`` was measured with, or an empty text.
    :param interval: What ``_low`` and ``_high`` are.
    """

    table: pandas.DataFrame
    attack: str
    interval: str


def as_results(table: Any, ours: Sequence[str] = ()) -> Results:
    """Natural and robust accuracy of each model.

    Of :func:`~art_lbgat.evaluation.evaluate`, robust is the row ``"worst"``, else AutoAttack's, else the lowest; of
    :func:`~art_lbgat.study.summarize` it is AutoAttack's, else PGD-20's.

    :param table: Of one of these, or any with ``model``, ``natural``, ``robust``, as ``BenchmarkResult.to_frame`` has.
    :param ours: Names of the models that the page is about; empty takes the column ``ours``, else none is.
    :raises TypeError: If it is no DataFrame.
    :raises ValueError: If it is another table, is empty, has a model twice or accuracies outside [0, 1].
    """
    if not isinstance(table, pandas.DataFrame):
        raise TypeError(f"results: expected a DataFrame with {_EXPECTED}, got {type(table).__name__}.")
    if len(table) == 0:
        raise ValueError(f"results: expected {_EXPECTED}, got no rows.")
    columns, attack, interval = set(table.columns), "", "95 % interval over images (Wilson)"
    if {"attack", "accuracy"} <= columns:
        rows, attack = _of_evaluate(table)
    elif {"arm", "natural_mean"} <= columns and {"autoattack_mean", "pgd-20_mean"} & columns:
        rows, attack = _of_summary(table)
        interval = "95 % interval of the mean over seeds (Student's t)"
    elif {"model", "natural", "robust"} <= columns:
        rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    else:
        raise ValueError(f"results: expected {_EXPECTED}, got columns {sorted(map(str, columns))}.")
    made = pandas.DataFrame(rows)
    made = made.assign(**{name: math.nan for name in _ACCURACIES if name not in made})
    made["flags"] = made["flags"].fillna("") if "flags" in made else ""
    made["ours"] = made["model"].isin(list(ours)) if ours or "ours" not in made else made["ours"].astype(bool)
    _check_results(made, ours)
    made = made.sort_values(["robust", "natural"], ascending=False, ignore_index=True, kind="stable")
    return Results(made[["model", *_ACCURACIES, "flags", "ours"]], attack, interval)


def evaluate_for_report(
    classifier: PyTorchClassifier,
    x: Any,
    y: Any,
    *,
    eps: float,
    norm: float | str = math.inf,
    name: str = "ours",
    title: str = "Robustness report",
    baselines: Mapping[str, PyTorchClassifier] | None = None,
    guide: PyTorchClassifier | None = None,
    history: pandas.DataFrame | Mapping[str, pandas.DataFrame] | None = None,
    leaderboard: pandas.DataFrame | None = None,
    attacks: Sequence[str] | None = None,
    autoattack: str | Sequence[str] = "standard",
    curve_eps: Sequence[float] | None = None,
    n_curve: int = 500,
    n_sanity: int = 100,
    sanity_attacks: Sequence[str] | None = None,
    n_pictures: int = 6,
    resolution: int = 80,
    class_names: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
    batch_size: int = 250,
    seed: int = 0,
) -> ReportContent:
    """Evaluate classifiers, measure curves and slices, make pictures, check the attacks, note what was run on what.

    ``robust`` is the worst case over the attacks, or the one attack there is. Smaller parts are balanced over classes.

    :param classifier: The model that the page is about.
    :param x: Raw natural inputs, ``(n, *input_shape)``.
    :param y: Hard labels, indices or one-hot.
    :param eps: Radius, in raw input units, > 0.
    :param norm: ``np.inf``, ``"inf"`` or 2.
    :param name: What the model is called.
    :param title: Title of the page.
    :param baselines: Other classifiers by name.
    :param guide: The guide, whose boundaries are drawn too; no model of the table unless ``baselines`` has it as well.
    :param history: ``trainer.history``, or several by name.
    :param leaderboard: The rows to draw behind the results, or None.
    :param attacks: As in :func:`~art_lbgat.evaluation.evaluate`, names only, ``"natural"`` and at least one other.
    :param autoattack: What ``"autoattack"`` runs.
    :param curve_eps: Radii of the curve; None is 0, 1/2, 1, 3/2, 2 and 3 times ``eps``; ``()`` leaves it out.
    :param n_curve: Samples of the curve.
    :param n_sanity: Samples of the sanity checks of ``classifier``, run at ``eps``; 0 leaves them out.
    :param sanity_attacks: Attacks of AutoAttack among them, as in :func:`~art_lbgat.evaluation.sanity_checks`.
    :param n_pictures: Images of 1 or 3 channels shown with their PGD-20 examples, at most 12; 0 leaves them out.
    :param resolution: Points along the longer side of a slice; 0 leaves the slices out, and so do fewer than 3 samples.
    :param class_names: A name for each class.
    :param config: Settings to be written down, such as those of the training.
    :param commands: What made this, as typed.
    :param batch_size: Samples per batch.
    :param seed: Seed of every random draw; the global generators are unchanged.
    :return: What :func:`~art_lbgat.report.write_report` takes.
    :raises ValueError: Bad arguments, natural logits with NaN or Inf, or an ``x_adv`` that leaves the threat model.
    """
    threat, others = check_threat(check_number(eps, "eps", exclusive=True), norm), dict(baselines or {})
    _check_parts(name, others, classifier.nb_classes, class_names, n_curve, n_sanity, n_pictures, resolution)
    models, x, labels = {name: classifier, **others}, as_array(x, "x"), check_labels(y, classifier.nb_classes)
    names = _attack_names(unless_unbounded(DEFAULT, models) if attacks is None else attacks)
    subjects, rows = run_suite(models, x, labels, threat, names, None, autoattack, batch_size, seed)
    table, order, at = as_table(rows), balanced_order(labels, seed), names.index("worst") if "worst" in names else 1
    masks = {each: {"natural": found[0].right, "robust": found[at].right} for each, found in rows.items()}
    how: dict[str, Any] = {"norm": norm, "batch_size": batch_size, "seed": seed}
    radii = [eps * k for k in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)] if curve_eps is None else list(curve_eps)
    part, few, source = order[:n_curve], order[:n_sanity], guide or next(iter(others.values()), None)
    return ReportContent(
        title, table, (name,), _threat_text(table, threat), table, leaderboard, class_names=tuple(class_names),
        history={name: history} if isinstance(history, pandas.DataFrame) else history,
        curve=robustness_curve(models, x[part], labels[part], radii, **how) if radii else None,
        per_class=_per_class(labels, subjects, rows, names),
        pictures=_pictures(subjects[name], order, n_pictures, threat, name, class_names),
        slices=_slices(models, guide, x, labels, order[:3], resolution, batch_size, name, class_names),
        sanity=sanity_checks(classifier, x[few], labels[few], eps=eps, source=source, autoattack=sanity_attacks, **how)
        .assign(model=name) if n_sanity else None,
        differences=difference_table(name, masks),
        provenance=_provenance(subjects, threat, names, autoattack, len(part), len(few), config, commands),
    )  # fmt: skip


def difference_table(model: str, masks: Mapping[Any, Mapping[str, Any]]) -> pandas.DataFrame | None:
    """The paired differences of a model to each other one, of masks ``(seeds, n)`` by kind; None where it is alone."""
    rows = []
    for other, own in masks.items():
        for kind, right in own.items() if other != model else ():
            found = paired_difference(masks[model][kind], right)
            rows.append({"model": model, "other": other, "kind": kind, "real": found.real, **found._asdict()})
    return pandas.DataFrame(rows) if rows else None


def _check_parts(
    name: str, others: Mapping[str, Any], nb_classes: int, class_names: Sequence[str], n_curve: int, n_sanity: int,
    n_pictures: int, resolution: int,
) -> None:  # fmt: skip
    if name in others:
        raise ValueError(f"baselines: expected names other than {name!r}, which is that of classifier, got it too.")
    check_count(n_curve, "n_curve")
    check_count(n_sanity, "n_sanity", minimum=0)
    if check_count(n_pictures, "n_pictures", minimum=0) > MAX_PICTURES:
        raise ValueError(f"n_pictures: expected at most {MAX_PICTURES}, got {n_pictures}.")
    if check_count(resolution, "resolution", minimum=0) == 1:
        raise ValueError("resolution: expected 0 or at least 2, got 1.")
    if class_names and len(class_names) != nb_classes:
        raise ValueError(f"class_names: expected {nb_classes} names, got {len(class_names)}.")


def _slices(
    models: Mapping[str, PyTorchClassifier], guide: PyTorchClassifier | None, x: NDArray[Any], labels: NDArray[Any],
    chosen: NDArray[np.int64], resolution: int, batch_size: int, name: str, class_names: Sequence[str],
) -> pandas.DataFrame | None:  # fmt: skip
    if not resolution or len(chosen) < 3:
        return None
    anchors = [f"image {i}, class {class_title(int(labels[k]), class_names)}" for i, k in enumerate(chosen, 1)]
    drawn = {**({} if guide is None else {f"guide of {name}": guide}), **models}
    return decision_slices(drawn, x[chosen], names=anchors, resolution=resolution, batch_size=batch_size)


def _provenance(
    subjects: Mapping[Any, Subject], threat: Threat, attacks: Sequence[str], autoattack: str | Sequence[str],
    n_curve: int, n_checks: int, config: Mapping[str, Any] | None, commands: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    subject, own = next(iter(subjects.values())), {"art_lbgat": art_lbgat.__version__}
    own |= {"Python": platform.python_version(), "system": platform.system()}
    return {
        "settings": {
            "eps": threat.eps, "norm": norm_name(threat.norm), "attacks": attacks, "autoattack": autoattack,
            "images": len(subject.x), "images of the curve": n_curve, "images of the checks": n_checks,
            "batch size": subject.batch_size, "seed": subject.seed, "device": str(subject.view.device),
        },
        **({"configuration": dict(config)} if config else {}),
        "SHA-256": {
            "images and labels": sha256_of([subject.x, subject.y]),
            **{f"weights of {name}": weights_sha256(each.view.module) for name, each in subjects.items()},
        },
        "versions": own | {name: version(name) for name in _LIBRARIES},
        "commands": list(commands),
    }  # fmt: skip


def _pictures(
    subject: Subject, order: NDArray[np.int64], n: int, threat: Threat, name: str, class_names: Sequence[str]
) -> Pictures | None:
    """Some images with their PGD-20 examples; None where none are wanted, inputs are no images or have no range."""
    bounds, images = subject.bounds(), subject.x.movedim(-1, 1) if subject.view.channels_last else subject.x
    if not n or bounds is None or images.ndim != 4 or images.shape[1] not in (1, 3):
        return None
    right = subject.right.numpy()[order]
    chosen = np.concatenate([order[right], order[~right]])[:n]  # an attack on what is wrong shows nothing
    few = make_subject(subject.view, subject.x[chosen], subject.y[chosen].numpy(), subject.batch_size, subject.seed)
    (plan,) = plan_attacks(_PICTURED)
    made = make_examples(few, plan, threat, torch.ones_like(few.right))
    verify(few.x, made.x_adv, threat.eps, threat.norm, bounds, subject.view.value_range(), f"attack {_PICTURED!r}")
    predicted, predicted_adv = (
        predict(few.view, each, few.batch_size, few.seed).argmax(dim=1).numpy() for each in (few.x, made.x_adv)
    )
    x, x_adv = (x.movedim(-1, 1) if few.view.channels_last else x for x in (few.x, made.x_adv))
    return Pictures(
        x.numpy(), x_adv.numpy(), few.y.numpy(), predicted, predicted_adv, tuple(class_names),
        (float(bounds[0].min()), float(bounds[1].max())), name,
        f"{_PICTURED}, L{norm_name(threat.norm)}, eps {threat.eps:.4g}",
    )  # fmt: skip


def pareto_front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices, ``x`` rising, of the points that no other is at least as good as in both and better in one; no NaN."""
    known = (i for i in range(len(x)) if math.isfinite(x[i]) and math.isfinite(y[i]))
    order = sorted(known, key=lambda i: (-x[i], -y[i]))
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
            given = list(part.attack)
            raise ValueError(f"results: expected a row 'natural' and another attack for {name!r}, got {given}.")
        if len(set(others["eps"])) > 1:
            raise ValueError(f"results: expected one eps for {name!r}, got {sorted(set(others['eps']))}.")
        preferred = [others[others["attack"] == "worst"], others[others["attack"].str.startswith("autoattack")]]
        chosen = next((p for p in preferred if len(p)), others.nsmallest(1, "accuracy")).iloc[0]
        row = {"model": name, "n": chosen["n"], "flags": chosen["flags"], "n_natural": natural["n"].iloc[0]}
        for kind, found in (("natural", natural.iloc[0]), ("robust", chosen)):
            row |= {kind: found["accuracy"], f"{kind}_low": found["low"], f"{kind}_high": found["high"]}
        rows.append(row)
        norm = NORMS.get(str(chosen["norm"]), str(chosen["norm"]))
        attacks.append(f"{chosen['attack']}, {norm}, eps {chosen['eps']:.4g}")
    return rows, " / ".join(dict.fromkeys(attacks))


def _of_summary(table: pandas.DataFrame) -> tuple[list[dict[str, Any]], str]:
    robust = "autoattack" if "autoattack_mean" in table else "pgd-20"
    several, rows = len(set(table["eps"])) > 1, []
    for each in table.to_dict("records"):
        row: dict[str, Any] = {"model": f"{each['arm']}, eps {each['eps']:.4g}" if several else str(each["arm"])}
        for kind, source in (("natural", "natural"), ("robust", robust)):
            mean, half = each[f"{source}_mean"] / 100, each.get(f"{source}_ci", math.nan) / 100
            low, high = np.clip([mean - half, mean + half], 0, 1).tolist()
            row |= {kind: mean, f"{kind}_low": low, f"{kind}_high": high}
        rows.append(row | {name: each[name] for name in ("n", "n_natural", "flags") if name in each})
    radius = "several eps" if several else f"eps {table['eps'].iloc[0]:.4g}"
    return rows, f"{'AutoAttack' if robust == 'autoattack' else 'PGD-20'}, {radius}"


def _check_results(made: pandas.DataFrame, ours: Sequence[str]) -> None:
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


def _attack_names(attacks: Any) -> list[str]:
    if isinstance(attacks, str) or not isinstance(attacks, Sequence):
        raise TypeError(f"attacks: expected a sequence of names, got {attacks!r}.")
    names = ["natural", *(check_text(attack, "attacks") for attack in attacks if attack != "natural")]
    if set(names) <= {"natural", "worst"}:
        raise ValueError(f"attacks: expected at least one attack beside 'natural', got {list(attacks)}.")
    return [*names, "worst"] if len(names) > 2 and "worst" not in names else names


def _threat_text(table: pandas.DataFrame, threat: Threat) -> str:
    attacked = [a for a in dict.fromkeys(table["attack"]) if a not in ("natural", "worst")]
    names = attacked[0] if len(attacked) == 1 else f"worst of {', '.join(attacked)}"
    return f"{names}, L{norm_name(threat.norm)}, eps {threat.eps:.4g}, n = {int(table['n'].iloc[0]):,}"


def _per_class(
    labels: NDArray[Any], subjects: Mapping[Any, Subject], rows: Mapping[Any, Sequence[Row]], names: Sequence[str]
) -> pandas.DataFrame:
    """Accuracy of each class and model, naturally and under all attacks together."""
    attacks, parts = " and ".join(each for each in names if each not in ("natural", "worst")), []
    for name, subject in subjects.items():
        robust = torch.stack([row.right for row in rows[name]]).all(dim=0).numpy()
        right = pandas.DataFrame({"class": labels, "natural": subject.right.numpy(), "robust": robust})
        found = right.groupby("class").agg(
            n=("natural", "size"), natural=("natural", "mean"), robust=("robust", "mean")
        )
        parts.append(found.reset_index().assign(model=name, attack=attacks))
    return pandas.concat(parts, ignore_index=True)
