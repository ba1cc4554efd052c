"""Everything a page shows, computed from classifiers with the functions of the package."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

import art_lbgat
from art_lbgat.checks import as_array, check_count, check_labels, check_number, check_seed, check_text
from art_lbgat.data import balanced_order
from art_lbgat.evaluation import robustness_curve, sanity_checks
from art_lbgat.evaluation.attacks import Threat, check_threat, plan_attacks
from art_lbgat.evaluation.record import data_sha256, weights_sha256
from art_lbgat.evaluation.results import as_table, norm_name
from art_lbgat.evaluation.subject import Subject, make_subject, predict
from art_lbgat.evaluation.suite import run_row, run_suite
from art_lbgat.report.content import MAX_PICTURES, Pictures, ReportContent

if TYPE_CHECKING:
    import pandas

_PICTURED = "pgd-20"
_LIBRARIES = (
    "adversarial-robustness-toolbox",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pyautoattack",
    "robustbench",
)


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
    attacks: Sequence[str] = ("natural", "pgd-20", "autoattack"),
    autoattack: str | Sequence[str] = "standard",
    curve_eps: Sequence[float] | None = None,
    n_curve: int = 500,
    n_sanity: int = 100,
    sanity_attacks: Sequence[str] = ("apgd-ce", "square"),
    n_pictures: int = 6,
    resolution: int = 80,
    class_names: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
    batch_size: int = 250,
    seed: int = 0,
) -> ReportContent:
    """Judge classifiers, measure curves and slices, make pictures, check the attacks, note what was judged with what.

    ``robust`` is the worst case over the attacks, or the one attack there is. Smaller parts are balanced over classes
    and the same for every model. The guide is no model of the table (name it in ``baselines`` too if it is to be one).

    :param classifier: The model that the page is about.
    :param x: Raw natural inputs, ``(n, *input_shape)``.
    :param y: Hard labels, indices or one-hot.
    :param eps: Radius, in raw input units, > 0.
    :param norm: ``np.inf``, ``"inf"`` or 2.
    :param name: What the model is called.
    :param title: Title of the page.
    :param baselines: Other classifiers by name.
    :param guide: The guide; its boundaries are drawn beside those of the others.
    :param history: ``trainer.history``, or several by name.
    :param leaderboard: The rows to draw behind the results, or None.
    :param attacks: As in :func:`~art_lbgat.evaluation.evaluate`, names only, ``"natural"`` and at least one other.
    :param autoattack: What ``"autoattack"`` runs.
    :param curve_eps: Radii of the curve; None is 0, 1/2, 1, 3/2, 2 and 3 times ``eps``; ``()`` leaves it out.
    :param n_curve: Samples of the curve.
    :param n_sanity: Samples of the sanity checks of ``classifier``, run at ``eps``; 0 leaves them out.
    :param sanity_attacks: Attacks of AutoAttack among them; ``()`` for none.
    :param n_pictures: Images shown with their PGD-20 examples, at most 12; 0 leaves them out, and so do inputs that are
        no images of 1 or 3 channels or have no ``clip_values``.
    :param resolution: Points along the longer side of a slice; 0 leaves the slices out, and so do fewer than 3 samples.
    :param class_names: A name for each class.
    :param config: Settings to be written down, such as those of the training.
    :param commands: What made this, as typed.
    :param batch_size: Samples per batch.
    :param seed: Seed of every random draw; the global generators are left as found.
    :return: What :func:`~art_lbgat.report.write_report` takes.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: Bad arguments, natural logits with NaN or Inf, or an ``x_adv`` that leaves the threat model.
    """
    threat = check_threat(check_number(eps, "eps", exclusive=True), norm)
    _check_sizes(n_curve, n_sanity, n_pictures, resolution)
    seed = check_seed(seed)
    if name in (baselines or {}):
        raise ValueError(f"baselines: expected names other than {name!r}, which is that of classifier, got it too.")
    models = {name: classifier, **(baselines or {})}
    x, labels = as_array(x, "x"), check_labels(y, classifier.nb_classes)
    names = _attack_names(attacks)
    if class_names and len(class_names) != classifier.nb_classes:
        raise ValueError(f"class_names: expected {classifier.nb_classes} names, got {len(class_names)}.")
    if len(names) > 2 and "worst" not in names:
        names.append("worst")
    options = {"autoattack": autoattack, "batch_size": batch_size, "seed": seed}
    subjects, rows = run_suite(models, x, labels, threat, names, **options)  # type: ignore[arg-type]
    table = as_table(rows)
    order = balanced_order(labels, seed)
    shared = {"norm": norm, "batch_size": batch_size, "seed": seed}
    curve = sanity = None
    radii = [eps * k for k in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)] if curve_eps is None else list(curve_eps)
    if radii:
        part = order[:n_curve]
        curve = robustness_curve(models, x[part], labels[part], radii, **shared)  # type: ignore[arg-type]
    if n_sanity:
        part, source = order[:n_sanity], guide if guide is not None else next(iter((baselines or {}).values()), None)
        sanity = sanity_checks(classifier, x[part], labels[part], eps=eps, source=source, autoattack=sanity_attacks,
                               **shared).assign(model=name)  # type: ignore[arg-type]  # fmt: skip
    subject = next(iter(subjects.values()))
    right = subject.right.numpy()[order]
    pictured = np.concatenate([order[right], order[~right]])  # an attack on what is wrong already shows nothing
    drawn = {**({} if guide is None else {f"guide of {name}": guide}), **models}
    return ReportContent(
        title=title,
        results=table,
        ours=(name,),
        threat=_threat_text(table, threat),
        attacks=table,
        leaderboard=leaderboard,
        history={name: history} if history is not None and not isinstance(history, Mapping) else history,
        curve=curve,
        per_class=_per_class(subjects, rows).assign(attack=" and ".join(each for each in names[1:] if each != "worst")),
        pictures=_pictures(subject, pictured[:n_pictures], threat, name, class_names) if n_pictures else None,
        slices=_slices(drawn, subject, order, class_names, resolution),
        class_names=tuple(class_names),
        sanity=sanity,
        provenance={
            "settings": {
                "eps": threat.eps, "norm": norm_name(threat.norm), "attacks": names, "autoattack": autoattack,
                "images": len(labels), "images of the curve": min(n_curve, len(labels)),
                "images of the checks": min(n_sanity, len(labels)),
                "batch size": batch_size, "seed": seed, "device": str(subject.view.device),
            },
            **({"configuration": dict(config)} if config else {}),
            "SHA-256": {
                "images and labels": data_sha256(subject.x, subject.y),
                **{f"weights of {key}": weights_sha256(each.view.module) for key, each in subjects.items()},
            },
            "versions": _versions(),
            "commands": list(commands),
        },
    )  # fmt: skip


def _attack_names(attacks: Any) -> list[str]:
    if isinstance(attacks, str) or not isinstance(attacks, Sequence):
        raise TypeError(f"attacks: expected a sequence of names, got {attacks!r}.")
    names = ["natural", *(check_text(attack, "attacks") for attack in attacks if attack != "natural")]
    if set(names) <= {"natural", "worst"}:
        raise ValueError(f"attacks: expected at least one attack beside 'natural', got {list(attacks)}.")
    return names


def _check_sizes(n_curve: Any, n_sanity: Any, n_pictures: Any, resolution: Any) -> None:
    check_count(n_curve, "n_curve")
    check_count(n_sanity, "n_sanity", minimum=0)
    if check_count(n_pictures, "n_pictures", minimum=0) > MAX_PICTURES:
        raise ValueError(f"n_pictures: expected at most {MAX_PICTURES}, got {n_pictures}.")
    if check_count(resolution, "resolution", minimum=0) == 1:
        raise ValueError("resolution: expected 0 or at least 2, got 1.")


def _threat_text(table: pandas.DataFrame, threat: Threat) -> str:
    attacked = [a for a in dict.fromkeys(table["attack"]) if a not in ("natural", "worst")]
    names = attacked[0] if len(attacked) == 1 else f"worst of {', '.join(attacked)}"
    return f"{names}, L{norm_name(threat.norm)}, eps {threat.eps:.4g}, n = {int(table['n'].iloc[0]):,}"


def _per_class(subjects: Mapping[Any, Subject], rows: Mapping[Any, Any]) -> pandas.DataFrame:
    """Natural and robust accuracy of each class; robust is right in every row."""
    import pandas

    made = []
    for name, subject in subjects.items():
        robust = torch.stack([row.right for row in rows[name]]).all(dim=0)
        for label in np.unique(subject.y.numpy()).tolist():
            of = subject.y == label
            made.append({"model": name, "class": label, "n": int(of.sum()),
                         "natural": float(subject.right[of].double().mean()),
                         "robust": float(robust[of].double().mean())})  # fmt: skip
    return pandas.DataFrame(made)


def _pictures(
    subject: Subject, chosen: NDArray[np.int64], threat: Threat, name: str, class_names: Sequence[str]
) -> Pictures | None:
    bounds, shape = subject.bounds(), tuple(subject.x.shape[1:])
    if bounds is None or len(shape) != 3 or shape[0] not in (1, 3):
        return None
    index = torch.from_numpy(np.asarray(chosen))
    few = make_subject(subject.view, subject.x[index], subject.y[index].numpy(), subject.batch_size, subject.seed)
    (plan,) = plan_attacks(_PICTURED)
    x_adv = run_row(few, plan, threat, keep_x_adv=True).x_adv
    assert x_adv is not None  # noqa: S101 (for the type checker: it was asked for)
    said = [_predicted(few, each) for each in (few.x, x_adv)]
    attack = f"{_PICTURED}, L{norm_name(threat.norm)}, eps {threat.eps:.4g}"
    limits = float(bounds[0].min()), float(bounds[1].max())
    return Pictures(
        few.x.numpy(), x_adv.numpy(), few.y.numpy(), said[0], said[1], tuple(class_names), limits, name, attack
    )


def _predicted(subject: Subject, x: torch.Tensor) -> NDArray[np.int64]:
    return np.asarray(predict(subject.view, x, subject.batch_size, subject.seed).argmax(dim=1).numpy())


def _slices(
    models: Mapping[str, PyTorchClassifier],
    subject: Subject,
    order: NDArray[np.int64],
    class_names: Sequence[str],
    resolution: int,
) -> pandas.DataFrame | None:
    from art_lbgat.diagnostics import decision_slices
    from art_lbgat.report.content import class_title

    if not resolution or len(order) < 3:
        return None
    chosen = order[:3]
    labels = subject.y.numpy()[chosen]
    names = [f"image {i + 1}, class {class_title(int(k), class_names)}" for i, k in enumerate(labels)]
    anchors = subject.x.numpy()[chosen]
    return decision_slices(dict(models), anchors, names=names, resolution=resolution, batch_size=subject.batch_size)


def _versions() -> dict[str, str]:
    found = {"art_lbgat": art_lbgat.__version__, "Python": platform.python_version(), "system": platform.system()}
    return found | {library: version(library) for library in _LIBRARIES}
