"""The page of a study: means over its seeds, and what the networks of its first seed do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from art_lbgat.checks import check_kind, check_path, check_text
from art_lbgat.data import DataSet
from art_lbgat.preserve import preserved_randomness
from art_lbgat.recipes.experiment import recipe_classifier
from art_lbgat.study.options import StudyOptions
from art_lbgat.study.plan import plan_runs
from art_lbgat.study.run import Task, first_data, judged_images
from art_lbgat.study.table import COUNTS, MEASURES, summarize
from art_lbgat.weights import load_weights

if TYPE_CHECKING:
    import pandas
    from art.estimators.classification import PyTorchClassifier

    from art_lbgat.report import ReportContent

_Z = 1.959963984540054  # of the normal distribution, 97.5 %
_GUIDED = ("bgat", "lbgat")
_MOST_MODELS = 7  # with a marker of their own each
_MOST_IMAGES = 500
_ENOUGH_SEEDS = 5  # for an interval over seeds; Student's t for two of them says nothing


def study_content(
    options: StudyOptions,
    output: str | Path,
    runs: pandas.DataFrame,
    *,
    title: str,
    commands: Sequence[str] = (),
    data: DataSet | None = None,
) -> ReportContent:
    """What a page says of a study: the table of :func:`summarize`, and curves, pictures and regions of its networks.

    Results are means over all seeds. Everything else is of the networks of the first seed, and of the seven most robust
    arms where there are more: the page is about the most robust guided arm, the others are its baselines.

    :param options: What was run.
    :param output: Where :func:`run_study` has put it.
    :param runs: What it gave.
    :param title: Title of the page.
    :param commands: What made it, as typed.
    :param data: The data set of the first seed, instead of loading it.
    :return: What :func:`~art_lbgat.report.write_report` takes.
    :raises TypeError: Arguments of another type.
    :raises FileNotFoundError: If the weights of a run are not in ``output``.
    :raises ValueError: Arms of several eps or norms, which one page cannot compare.
    """
    import pandas

    from art_lbgat.report import evaluate_for_report

    check_kind(options, "options", StudyOptions)
    check_text(title, "title")
    if not isinstance(commands, (list, tuple)) or not all(isinstance(each, str) for each in commands):
        raise TypeError(f"commands: expected a sequence of texts, got {commands!r}.")
    folder = check_path(output, "output") / "runs"
    summary = summarize(runs).reset_index(drop=True)
    threats = {(recipe.eps, recipe.norm) for recipe in options.arms.values()}
    if len(threats) > 1:
        raise ValueError(f"options: expected arms of one eps and norm, got {sorted(threats)}.")
    eps, norm = threats.pop()
    tasks = {arm: task for arm, task in plan_runs(options)[1] if task.seed == options.seeds[0]}
    arms = _most_robust_first(summary)
    guided = [arm for arm in arms if tasks[arm].recipe.method in _GUIDED]
    subject = (guided or arms)[0]
    arms = [subject, *(arm for arm in arms if arm != subject)][:_MOST_MODELS]
    data = first_data(options) if data is None else check_kind(data, "data", DataSet)
    with preserved_randomness():
        models = {arm: _classifier(tasks[arm], folder, data) for arm in arms}
        guide = _guide(tasks[subject], options, folder, data)
    x, y = judged_images(data, options, _MOST_IMAGES)
    histories = {arm: pandas.read_csv(folder / f"{tasks[arm].key}.history.csv") for arm in arms}
    content = evaluate_for_report(
        models[subject],
        x,
        y,
        eps=eps,
        norm="inf" if norm == "inf" else 2,
        name=subject,
        title=title,
        baselines={arm: model for arm, model in models.items() if arm != subject},
        guide=guide,
        history=histories,
        attacks=("natural", "pgd-20"),
        class_names=data.class_names,
        config=tasks[subject].settings,
        commands=commands,
        seed=options.seeds[0],
    )
    seeds = len(set(runs["seed"]))
    note = (
        f"Accuracies in the answer, the scatter and the tables of models and attacks are means over {seeds} seeds. "
        if seeds > 1
        else "Each number is of one training, with one seed; another seed gives another number. "
    )
    note += f"Curves, pictures, regions, classes and checks are of the networks of seed {options.seeds[0]}, "
    note += f"on {len(x)} images."
    attacks = _attacks(summary, runs, norm)
    results = _with_flags(summary, runs) if seeds >= _ENOUGH_SEEDS else _over_images(summary, runs)
    if seeds < _ENOUGH_SEEDS:
        note += " Intervals are over images alone: so few trainings do not tell how much another one may differ."
    threat = f"{attacks[attacks['attack'] != 'natural'].groupby('model')['attack'].last().iloc[0]}, "
    threat += f"{'Linf' if norm == 'inf' else 'L2'}, eps {eps:.4g}"
    return replace(content, results=results, ours=guided, attacks=attacks, threat=threat, notes=(note,))


def _most_robust_first(summary: pandas.DataFrame) -> list[str]:
    measure = "autoattack_mean" if "autoattack_mean" in summary else "pgd-20_mean"
    return list(summary.sort_values([measure, "natural_mean"], ascending=False, kind="stable")["arm"])


def _classifier(task: Task, folder: Path, data: DataSet) -> PyTorchClassifier:
    """The trained network of a run."""
    found = recipe_classifier(task.recipe, task.recipe.model, data.nb_classes, data.input_shape, None)
    load_weights(found.model, folder / f"{task.key}.safetensors")
    return found


def _guide(task: Task, options: StudyOptions, folder: Path, data: DataSet) -> PyTorchClassifier | None:
    """The guide of a run: frozen ones are runs of their own, one that has learned lies beside its student."""
    if task.recipe.method not in _GUIDED:
        return None
    model, recipe, path = task.recipe.guides[0], task.recipe, folder / f"{task.key}.guide.safetensors"
    if task.guides:
        recipe, path = options.guide_recipe(task.recipe, model), folder / f"{task.guides[0]}.safetensors"
    if not path.is_file():
        return None
    found = recipe_classifier(recipe, model, data.nb_classes, data.input_shape, None)
    load_weights(found.model, path)
    return found


def _over_images(summary: pandas.DataFrame, runs: pandas.DataFrame) -> pandas.DataFrame:
    """Means over seeds with Wilson's interval over the images, which are the same for every seed."""
    import pandas

    rows = []
    robust = "autoattack" if "autoattack_mean" in summary else "pgd-20"
    for row in _with_flags(summary, runs).to_dict("records"):
        made = {"model": row["arm"], "n": row["n"], "n_natural": row["n_natural"], "flags": row["flags"]}
        for kind, measure, n in (("natural", "natural", row["n_natural"]), ("robust", robust, row["n"])):
            low, high = wilson(row[f"{measure}_mean"] / 100, n)
            made |= {kind: row[f"{measure}_mean"] / 100, f"{kind}_low": low, f"{kind}_high": high}
        rows.append(made)
    return pandas.DataFrame(rows)


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that need not be a whole number of samples (a mean over seeds).

    ``(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``, Wilson 1927.

    :param accuracy: ``p``, in [0, 1].
    :param n: Samples.
    """
    centre, scale = accuracy + _Z**2 / (2 * n), 1 + _Z**2 / n
    half = _Z * math.sqrt(accuracy * (1 - accuracy) / n + _Z**2 / (4 * n**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _with_flags(summary: pandas.DataFrame, runs: pandas.DataFrame) -> pandas.DataFrame:
    """The table with what AutoAttack warned of in the runs of each arm, and the numbers of images."""
    flags = {arm: "; ".join(dict.fromkeys(flag for flag in part["flags"] if flag)) for arm, part in runs.groupby("arm")}
    measured = COUNTS["autoattack" if "autoattack" in runs else "pgd-20"]
    n = {"n": int(runs[measured].max()), "n_natural": int(runs["n"].max())}
    return summary.assign(flags=summary["arm"].map(flags), **n)


def _attacks(summary: pandas.DataFrame, runs: pandas.DataFrame, norm: str) -> pandas.DataFrame:
    """The means as rows of an evaluation."""
    import pandas

    kinds = sorted(set(runs.get("autoattack_kind", ())))
    names = {"autoattack": " / ".join(map(str, kinds)) or "autoattack"}
    rows = []
    for row in summary.to_dict("records"):
        for measure in (each for each in MEASURES if f"{each}_mean" in row):
            mean, half = row[f"{measure}_mean"] / 100, row[f"{measure}_ci"] / 100
            n = int(runs[COUNTS[measure]].max())
            enough = row["seeds"] >= _ENOUGH_SEEDS
            ends = (max(0.0, mean - half), min(1.0, mean + half)) if enough else wilson(mean, n)
            rows.append(
                {
                    "model": row["arm"],
                    "attack": names.get(measure, measure),
                    "norm": norm,
                    "eps": 0.0 if measure == "natural" else row["eps"],
                    "n": n,
                    "accuracy": mean,
                    "low": ends[0],
                    "high": ends[1],
                }
            )
    return pandas.DataFrame(rows)
