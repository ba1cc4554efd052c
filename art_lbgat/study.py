"""Studies: recipes x seeds on one data set, all evaluated alike, resumable, as one table with intervals."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas
import torch
from numpy.typing import NDArray

from art_lbgat import __version__
from art_lbgat.checks import check_choice, check_count, check_kind, check_optional, check_path, check_seed, check_text
from art_lbgat.data import DataSet
from art_lbgat.data.datasets import LARGEST_SEED
from art_lbgat.data.folders import find_files
from art_lbgat.evaluation.attacks import check_threat
from art_lbgat.evaluation.results import Row, paired_difference, wilson_interval
from art_lbgat.evaluation.suite import run_suite
from art_lbgat.files import write_text
from art_lbgat.preserve import preserved_randomness
from art_lbgat.recipes import Recipe
from art_lbgat.recipes.build import load_recipe_data, recipe_classifier, training_images
from art_lbgat.runs import evaluation_images
from art_lbgat.weights import load_weights, save_weights

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from art_lbgat.report import ReportContent

__all__ = ["StudyOptions", "run_study", "study_content", "summarize"]

Report = Callable[[int, int, dict[str, Any]], None]
COUNTS = {"natural": "n", "pgd-20": "n", "autoattack": "n_autoattack"}  # the column of how many images
MEASURES = tuple(COUNTS)
_INDEX_SEED = 1000  # apart from the seeds of a study, so that two guides of one ensemble start differently
_MOST_MODELS = 7  # of a page, with a marker of their own each
_MOST_IMAGES = 500
_GRACE = 7.0  # seconds for a worker to end, of the ten that schedulers and containers give
_ENOUGH_SEEDS = 5  # for an interval over seeds; Student's t for two of them says nothing


@dataclass(frozen=True)
class StudyOptions:
    """What a study runs.

    :param arms: What is compared: recipes by label, all on the same data.
    :param seeds: One run of each arm for each; a seed decides validation split, initial weights, order, attack starts.
    :param root: Where the data lies; not needed for the digits.
    :param limit: Use only so many training images, or all.
    :param nb_epochs: Epochs of every run and guide, milestones and warm-up in proportion; None takes the recipes'.
    :param part: What is evaluated: ``"test"`` for numbers to report, ``"validation"`` to choose settings by.
    :param n_test: Images, balanced over classes, for natural accuracy and PGD-20, the same for every run; or all.
    :param n_autoattack: Images for standard AutoAttack, the first of those; None is all of those, 0 leaves it out.
    :param workers: Processes; None is one per core, or one where there is a GPU.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: No arm or seed, arms on different data, a value outside its range.
    """

    arms: Mapping[str, Recipe]
    seeds: Sequence[int] = (0, 1)
    root: str | Path | None = None
    limit: int | None = None
    nb_epochs: int | None = None
    part: Literal["test", "validation"] = "test"
    n_test: int | None = None
    n_autoattack: int | None = 100
    workers: int | None = None

    def __post_init__(self) -> None:
        items = self.arms.items() if isinstance(self.arms, Mapping) else [(0, None)]
        if any(not isinstance(label, str) or not isinstance(recipe, Recipe) for label, recipe in items):
            raise TypeError(f"arms: expected a mapping from labels to recipes, got {self.arms!r}.")
        if isinstance(self.seeds, (str, bytes)) or not isinstance(self.seeds, Sequence):
            raise TypeError(f"seeds: expected a sequence of whole numbers, got {self.seeds!r}.")
        for name in ("arms", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none.")
        if len({check_seed(seed, "seeds", maximum=LARGEST_SEED) for seed in self.seeds}) < len(self.seeds):
            raise ValueError(f"seeds: expected different seeds, got {tuple(self.seeds)}.")
        if len(data := sorted({recipe.data for recipe in self.arms.values()})) > 1:
            raise ValueError(f"arms: expected recipes on the same data, got {data}.")
        if self.root is not None:
            check_path(self.root, "root")
        for name in ("limit", "nb_epochs", "n_test", "workers"):
            check_optional(check_count, getattr(self, name), name)
        check_optional(check_count, self.n_autoattack, "n_autoattack", minimum=0)
        check_choice(self.part, "part", ("test", "validation"))

    @cached_property
    def own_data(self) -> str | None:
        """SHA-256 of files of one's own, which may change between two calls; published ones do not."""
        kind, root = next(iter(self.arms.values())).data, Path(self.root or "")
        if kind == "folder" and self.root is not None:
            return hashlib.sha256(repr(find_files(root)).encode()).hexdigest()
        return hashlib.sha256(root.read_bytes()).hexdigest() if kind == "npz" and root.is_file() else None

    def recipe(self, arm: str) -> Recipe:
        """The recipe of an arm, for the number of epochs of this study.

        :param arm: Its label.
        """
        return self.arms[arm].scaled(self.nb_epochs or self.arms[arm].nb_epochs)

    def guide_recipe(self, recipe: Recipe, model: str) -> Recipe:
        """The recipe that trains one frozen guide, evaluated at the eps and norm of its student.

        :param recipe: The student's.
        :param model: The guide's architecture.
        """
        own = recipe.for_guide(model)
        return own.scaled(self.nb_epochs or own.nb_epochs).override(eps=recipe.eps, norm=recipe.norm)


@dataclass(frozen=True)
class Task:
    """One run; ``index`` tells guides of one model apart, ``guides`` are the keys of the runs of its guides."""

    recipe: Recipe
    seed: int
    options: StudyOptions
    index: int = 0
    guides: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values."""
        options = self.options
        recipe = {k: v for k, v in self.recipe.as_dict().items() if k not in ("published", "source", "notes")}
        chosen = {name: getattr(options, name) for name in ("limit", "part", "n_test", "n_autoattack")}
        root = None if options.root is None else str(Path(options.root).resolve())
        own = {"root": root, "seed": self.seed, "index": self.index, "guides": list(self.guides)}
        own |= {"data": options.own_data} if options.own_data else {}
        return {"recipe": recipe, **chosen, **own, "version": __version__}

    @property
    def key(self) -> str:
        """A name for its files, which differs where any setting does."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.recipe.id}-seed{self.seed}-{digest}"


def run_study(
    options: StudyOptions, output: str | Path | None = None, report: Report | None = None
) -> pandas.DataFrame:
    """Train and evaluate every arm with every seed.

    Each run writes ``<output>/runs/<recipe>-seed<k>-<settings>.{json,safetensors,history.csv}`` when it ends. Called
    again with the same ``output``, runs that ended are read, and only the others are run.

    :param options: What to run.
    :param output: The folder that keeps the runs; None keeps nothing.
    :param report: Called with (runs done, runs in all, row) after each run.
    :return: A row per arm and seed: accuracies in [0, 1], numbers of images, AutoAttack's warnings, seconds.
    :raises TypeError: Arguments of another type.
    :raises NotADirectoryError: If ``output`` is a file.
    """
    check_kind(options, "options", StudyOptions)
    if report is not None and not callable(report):
        raise TypeError(f"report: expected a function (done, total, row), got {report!r}.")
    if output is not None and check_path(output, "output").is_file():
        raise NotADirectoryError(f"output: expected a folder, got the file {output}.")
    guides, arms = plan_runs(options)
    stages = [guides, {task.key: task for _, task in arms if task.key not in guides}]
    place: Any = tempfile.TemporaryDirectory() if output is None else nullcontext(output)
    with place as root:
        folder = Path(root) / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        rows = _run_all(stages, folder, options, report)
    return pandas.DataFrame([{"arm": arm, **rows[task.key]} for arm, task in arms])


def plan_runs(options: StudyOptions) -> tuple[dict[str, Task], list[tuple[str, Task]]]:
    """The guides' runs by key, and the run of each arm and seed; an arm that is itself such a guide is that run."""
    guides: dict[str, Task] = {}
    arms: list[tuple[str, Task]] = []
    for arm in options.arms:
        recipe = options.recipe(arm)
        for seed in options.seeds:
            frozen = recipe.guides if recipe.method == "bgat" else ()
            own = [Task(options.guide_recipe(recipe, model), seed, options, frozen[:i].count(model))
                   for i, model in enumerate(frozen)]  # fmt: skip
            guides |= {guide.key: guide for guide in own}
            arms.append((arm, Task(recipe, seed, options, guides=tuple(guide.key for guide in own))))
    return guides, arms


def _run_all(
    stages: Sequence[Mapping[str, Task]], folder: Path, options: StudyOptions, report: Report | None
) -> dict[str, dict[str, Any]]:
    """The row of each run by key. A stage begins when the one before it has ended."""
    rows: dict[str, dict[str, Any]] = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, processes = sum(map(len, stages)), options.workers or (1 if torch.cuda.is_available() else cores)

    def ended(key: str, row: dict[str, Any]) -> None:
        rows[key] = row
        if report is not None:
            report(len(rows), total, row)

    others = multiprocessing.active_children()
    spawn, threads = multiprocessing.get_context("spawn"), max(1, cores // processes)
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=initialize, initargs=(threads,)) as pool:
        try:
            for stage in stages:
                futures = {}
                for key, task in stage.items():
                    row = finished(task, folder)
                    if row is None:
                        futures[pool.submit(run, task, folder)] = key
                    else:
                        ended(key, row)
                for future in as_completed(futures):
                    ended(futures[future], future.result())
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            _end([child for child in multiprocessing.active_children() if child not in others])
            if isinstance(error, BrokenProcessPool):
                why = "memory ran out, or the script is no file that calls this under if __name__ == '__main__'"
                raise RuntimeError(f"workers: one ended before its run did: {why}.") from error
            raise
    return rows


def _end(workers: Sequence[BaseProcess]) -> None:
    """Ask workers to end, of which one that trains writes a checkpoint; after some seconds end them."""
    until = time.monotonic() + _GRACE
    try:
        while time.monotonic() < until and any(worker.is_alive() for worker in workers):
            for worker in workers:  # again and again, since one may begin the next run
                worker.terminate()
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.kill()


def initialize(threads: int) -> None:
    """A worker: its share of the cores; denormals as 0, which are slow on some processors; gone when the study is."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    logging.getLogger("art_lbgat.data").setLevel(logging.ERROR)  # what is left out is said once, by the study
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:  # a study that is killed cannot end its workers, which would run to their end
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


def finished(task: Task, folder: Path) -> dict[str, Any] | None:
    """The row of a run that ended earlier, or None where it did not, or its record is damaged."""
    try:
        record = json.loads((folder / f"{task.key}.json").read_text(encoding="utf-8"))
        complete = record["settings"] == task.settings and (folder / f"{task.key}.safetensors").is_file()
        masks = {f"{name}_right" for name in MEASURES if name in record["row"]}  # which older records lack
        return dict(record["row"]) if complete and masks <= set(record["row"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run(task: Task, folder: Path) -> dict[str, Any]:
    """Train and evaluate; write the weights, then the record, so that a record means that all is there.

    A run that was stopped in training resumes from its last checkpoint, with the bits of one never stopped.
    """
    recipe, options = task.recipe, task.options
    data = load_recipe_data(recipe, options.root, seed=task.seed, limit=options.limit)
    checkpoints = folder / f"{task.key}.checkpoints"
    weights = [folder / f"{key}.safetensors" for key in task.guides] or None
    seed = task.seed + _INDEX_SEED * task.index
    experiment = recipe.build(data=data, seed=seed, guide_weights=weights, verbose=False, checkpoint_dir=checkpoints)
    start = time.perf_counter()
    experiment.fit()
    seconds = time.perf_counter() - start
    # Before the evaluation, which may fail: what took long is not to be lost.
    save_weights(experiment.classifier.model, folder / f"{task.key}.safetensors")
    if recipe.method == "lbgat":
        save_weights(experiment.guides[0].model, folder / f"{task.key}.guide.safetensors")
    experiment.trainer.history.to_csv(folder / f"{task.key}.history.csv", index=False)
    row = {
        "recipe": recipe.id, "eps": recipe.eps, "seed": task.seed, "part": options.part,
        "selection": "none" if recipe.run.keep == "last" else recipe.run.selection,
        **_evaluate(experiment.classifier, data, task),
        "train_seconds": seconds, "n_train": len(training_images(recipe, data)),
        "nb_epochs": int(experiment.trainer.history.epoch.iloc[-1]),
    }  # fmt: skip
    shutil.rmtree(checkpoints)  # what they were for is done
    write_text(folder / f"{task.key}.json", json.dumps({"settings": task.settings, "row": row}, indent=1))
    return row


def first_data(options: StudyOptions) -> DataSet:
    """The data of the runs of the first seed."""
    recipe = next(iter(options.arms.values()))
    return load_recipe_data(recipe, options.root, seed=options.seeds[0], limit=options.limit)


def _images(data: DataSet, options: StudyOptions, most: int | None = None) -> tuple[Any, Any]:
    """The images that runs are evaluated on, as arrays."""
    few = None if options.n_test is None else max(options.n_test, options.n_autoattack or 0)
    return evaluation_images(data, min(filter(None, (few, most)), default=None), options.part).arrays()


def _evaluate(classifier: PyTorchClassifier, data: DataSet, task: Task) -> dict[str, Any]:
    """Accuracies, with the images that were right as a text of 0 and 1 each, so that methods can be paired."""
    options, recipe = task.options, task.recipe
    x, y = _images(data, options)
    threat = check_threat(recipe.eps, "inf" if recipe.norm == "inf" else 2)
    rows: list[Row] = []
    for n, attacks in ((options.n_test, ["natural", "pgd-20"]), (options.n_autoattack, ["autoattack"])):
        if n != 0:
            rows += run_suite(classifier, x[:n], y[:n], threat, attacks, seed=task.seed)[1][None]
    found: dict[str, Any] = {"n": len(rows[0].right), "n_autoattack": 0, "flags": ""}
    for name, row in zip(MEASURES, rows, strict=False):
        found |= {name: row.as_dict()["accuracy"], f"{name}_right": "".join(map(str, row.right.int().tolist()))}
        if name == "autoattack":
            found |= {"n_autoattack": len(row.right), "flags": "; ".join(row.flags), "autoattack_kind": row.attack}
    return {**found, "judge_seconds": sum(row.seconds for row in rows)}


def right_masks(runs: pandas.DataFrame, name: str, seeds: Sequence[int]) -> NDArray[np.bool_]:
    """Which images the runs of one arm had right, ``(seeds, n)``."""
    if (column := f"{name}_right") not in runs:
        raise ValueError(f"runs: expected the table of run_study, missing columns {[column]}.")
    texts = runs.set_index("seed").loc[list(seeds), column]
    return np.stack([np.frombuffer(text.encode(), dtype=np.uint8) == ord("1") for text in texts])


def summarize(runs: pandas.DataFrame, baseline: str | None = None) -> pandas.DataFrame:
    """Mean, spread and interval over seeds, a row per eps and arm, in the order of the runs.

    :param runs: The table of :func:`~art_lbgat.study.run_study`.
    :param baseline: The arm that the others are compared with, seed by seed; None compares with none.
    :return: In percent, for each accuracy: ``_mean``, ``_std`` (sample standard deviation) and ``_ci`` (half the width
        of the 95 % interval of the mean, Student's t), NaN for one seed; with a baseline ``_diff``, ``_diff_low`` and
        ``_diff_high``, the :func:`~art_lbgat.evaluation.paired_difference` on equal images and seeds, of which an
        interval without 0 is a real difference; mean seconds; number of seeds.
    :raises TypeError: If ``runs`` is no table.
    :raises ValueError: If it is another table, or there is no arm ``baseline``.
    """
    check_kind(runs, "runs", pandas.DataFrame)
    lacking = {"arm", "eps", "seed", "train_seconds", "judge_seconds"} - set(runs.columns)
    if lacking:
        raise ValueError(f"runs: expected the table of run_study, missing columns {sorted(lacking)}.")
    if baseline is not None and not (isinstance(baseline, str) and baseline in set(runs["arm"])):
        raise ValueError(f"baseline: expected one of {sorted(set(runs['arm']))}, got {baseline!r}.")
    rows = []
    for (eps, arm), group in runs.groupby(["eps", "arm"], sort=False):
        row: dict[str, Any] = {"eps": eps, "arm": arm, "seeds": len(group)}
        other = runs[(runs["arm"] == baseline) & (runs["eps"] == eps)]
        common = [] if arm == baseline else sorted(set(group["seed"]) & set(other["seed"]))
        for name in (each for each in MEASURES if each in runs):
            percent = 100 * group[name]
            row |= {f"{name}_mean": percent.mean(), f"{name}_std": percent.std(), f"{name}_ci": half_interval(percent)}
            if common:
                found = paired_difference(*(right_masks(each, name, common) for each in (group, other)))
                ends = {"_diff": found.value, "_diff_low": found.low, "_diff_high": found.high}
                row |= {f"{name}{end}": 100 * value for end, value in ends.items()}
        rows.append(row | {name: group[name].mean() for name in ("train_seconds", "judge_seconds")})
    return pandas.DataFrame(rows)


def half_interval(values: pandas.Series[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean (Student's t); NaN for fewer than two values."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.sem()) if len(values) > 1 else math.nan


def cell(mean: float, spread: float) -> str:
    """``mean ± spread`` with one decimal; the mean alone where there is no spread, nothing where there is no mean."""
    if math.isnan(mean):
        return ""
    return f"{mean:.1f}" if math.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"


def study_content(
    options: StudyOptions, output: str | Path, runs: pandas.DataFrame, *, title: str, commands: Sequence[str] = (),
    data: DataSet | None = None,
) -> ReportContent:  # fmt: skip
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
    from art_lbgat.report import as_results, evaluate_for_report
    from art_lbgat.report.content import difference_table

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
    seeds, first = len(set(runs["seed"])), options.seeds[0]
    tasks = {arm: task for arm, task in plan_runs(options)[1] if task.seed == first}
    robust = "autoattack" if "autoattack_mean" in summary else "pgd-20"
    arms = list(summary.sort_values([f"{robust}_mean", "natural_mean"], ascending=False, kind="stable")["arm"])
    guided = [arm for arm in arms if tasks[arm].recipe.guides]
    subject = (guided or arms)[0]
    arms = [subject, *(arm for arm in arms if arm != subject)][:_MOST_MODELS]
    data = first_data(options) if data is None else check_kind(data, "data", DataSet)
    chosen = {arm: (tasks[arm].recipe, folder / f"{tasks[arm].key}.safetensors") for arm in arms}
    with preserved_randomness():
        models = {arm: _network(recipe, recipe.model, path, data) for arm, (recipe, path) in chosen.items()}
        guide = _guide(tasks[subject], options, folder, data)
    x, y = _images(data, options, _MOST_IMAGES)
    content = evaluate_for_report(
        models.pop(subject), x, y, eps=eps, norm="inf" if norm == "inf" else 2, name=subject, title=title,
        baselines=models, guide=guide, attacks=("natural", "pgd-20"), class_names=data.class_names,
        history={arm: pandas.read_csv(folder / f"{tasks[arm].key}.history.csv") for arm in arms},
        config=tasks[subject].settings, commands=commands, seed=first,
    )  # fmt: skip
    results = attacks = _attacks(summary, runs, norm)
    threat = as_results(attacks).attack
    if seeds >= _ENOUGH_SEEDS:
        flags = attacks.drop_duplicates("model").set_index("model")["flags"]
        n = {"n": int(runs[COUNTS[robust]].max()), "n_natural": int(runs["n"].max())}
        results = summary.assign(flags=summary["arm"].map(flags), **n)
    attacks, notes = attacks.drop(columns="flags"), (_note(seeds, first, len(x)),)
    kinds = {"natural": "natural", "robust": robust}
    masks = {
        arm: {kind: right_masks(part, name, options.seeds) for kind, name in kinds.items()}
        for arm, part in runs.groupby("arm", sort=False)
    }
    return replace(
        content, results=results, ours=guided, attacks=attacks, threat=threat, notes=notes,
        differences=difference_table(subject, masks),
    )  # fmt: skip


def _note(seeds: int, first: int, images: int) -> str:
    """What the numbers of the page are means over."""
    note = "Each number is of one training, with one seed; another seed gives another number. "
    if seeds > 1:
        note = (
            f"Accuracies in the answer, the scatter and the tables of models and attacks are means over {seeds} seeds. "
        )
    note += f"Curves, pictures, regions, classes and checks are of the networks of seed {first}, on {images} images."
    if seeds < _ENOUGH_SEEDS:
        note += " Intervals are over images alone: so few trainings do not tell how much another one may differ."
    return note


def _network(recipe: Recipe, model: str, path: Path, data: DataSet) -> PyTorchClassifier:
    found = recipe_classifier(recipe, model, data.nb_classes, data.input_shape, None)
    load_weights(found.model, path)
    return found


def _guide(task: Task, options: StudyOptions, folder: Path, data: DataSet) -> PyTorchClassifier | None:
    """The guide of a run: frozen ones are runs of their own, one that has learned lies beside its student."""
    if not task.recipe.guides:
        return None
    model, recipe, path = task.recipe.guides[0], task.recipe, folder / f"{task.key}.guide.safetensors"
    if task.guides:
        recipe, path = options.guide_recipe(task.recipe, model), folder / f"{task.guides[0]}.safetensors"
    return _network(recipe, model, path, data) if path.is_file() else None


def _attacks(summary: pandas.DataFrame, runs: pandas.DataFrame, norm: str) -> pandas.DataFrame:
    """The means as rows of an evaluation; of few seeds, with intervals over the images, the same for every seed."""
    tables, kinds = [], " / ".join(sorted(map(str, runs.get("autoattack_kind", pandas.Series()).unique())))
    n = {"n": runs["n"].max(), "n_autoattack": runs["n_autoattack"].max(), "autoattack_kind": kinds}
    for row in summary.to_dict("records"):
        flags = "; ".join(dict.fromkeys(filter(None, runs.loc[runs["arm"] == row["arm"], "flags"])))
        means = {name: row[f"{name}_mean"] / 100 for name in MEASURES if f"{name}_mean" in row}
        table = evaluation_rows({**n, **means, "eps": row["eps"], "flags": flags}, norm)
        if row["seeds"] >= _ENOUGH_SEEDS:
            half = [row[f"{name}_ci"] / 100 for name in means]
            table["low"], table["high"] = (table["accuracy"] - half).clip(0, 1), (table["accuracy"] + half).clip(0, 1)
        tables.append(table.assign(model=row["arm"], flags=flags))
    return pandas.concat(tables, ignore_index=True)


def evaluation_rows(run: Mapping[str, Any], norm: str) -> pandas.DataFrame:
    """A row of a study as the table of ``evaluate``."""
    rows = []
    for name in (each for each in MEASURES if each in run):
        n, strong = int(run[COUNTS[name]]), name == "autoattack"
        low, high = wilson_interval(run[name], n)
        rows.append({"attack": run["autoattack_kind"] if strong else name, "norm": norm,
                     "eps": 0.0 if name == "natural" else run["eps"], "n": n, "accuracy": run[name], "low": low,
                     "high": high, "flags": run["flags"] if strong else ""})  # fmt: skip
    return pandas.DataFrame(rows)
