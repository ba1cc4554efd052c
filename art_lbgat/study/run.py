"""One run of a study: train by a recipe, judge, and keep what came out on disk."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier

import art_lbgat
from art_lbgat.data import DataSet, balanced_order
from art_lbgat.data.datasets import Arrays
from art_lbgat.evaluation import evaluate
from art_lbgat.recipes import Recipe
from art_lbgat.recipes.experiment import load_recipe_data, training_images
from art_lbgat.study.options import StudyOptions
from art_lbgat.weights import save_weights

_INDEX_SEED = 1000  # apart from the seeds of a study, so that two guides of one ensemble start differently


@dataclass(frozen=True)
class Task:
    """One run.

    :param recipe: The recipe.
    :param seed: The seed of the arm.
    :param options: How it is judged.
    :param index: Which of several guides of the same model this is; 0 for all else.
    :param guides: Keys of the runs that train its frozen guides.
    """

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
        judged = {name: getattr(options, name) for name in ("limit", "part", "n_test", "n_autoattack")}
        root = None if options.root is None else str(Path(options.root).resolve())
        own = {
            "root": root,
            "seed": self.seed,
            "index": self.index,
            "guides": list(self.guides),
            "version": art_lbgat.__version__,
        }
        return {"recipe": recipe, **judged, **own}

    @property
    def key(self) -> str:
        """A name for its files, which differs where any setting does."""
        text = json.dumps(self.settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self.recipe.id}-seed{self.seed}-{digest}"


def finished(task: Task, folder: Path) -> dict[str, Any] | None:
    """The row of a run that ended earlier, or None where it did not, or its record is damaged.

    :param task: The run.
    :param folder: Where finished runs are kept.
    """
    try:
        record = json.loads((folder / f"{task.key}.json").read_text(encoding="utf-8"))
        row = record["row"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = (folder / f"{task.key}.safetensors").is_file() and record.get("settings") == task.settings
    return dict(row) if complete else None


def run(task: Task, folder: Path) -> dict[str, Any]:
    """Train and judge; write the weights, then the record, so that a record means that all is there.

    A run that was stopped in training goes on from its last checkpoint, with the bits of one never stopped.

    :param task: What to run.
    :param folder: Where its files go, and where those of its guides are.
    :return: The row of the table; accuracies in [0, 1].
    """
    recipe, options = task.recipe, task.options
    data = load_recipe_data(recipe, options.root, seed=task.seed, limit=options.limit)
    checkpoints = folder / f"{task.key}.checkpoints"
    experiment = recipe.build(
        data=data,
        seed=task.seed + _INDEX_SEED * task.index,
        guide_weights=[folder / f"{key}.safetensors" for key in task.guides] or None,
        verbose=False,
        run={"checkpoint_dir": checkpoints},
    )
    start = time.perf_counter()
    experiment.fit()
    seconds = time.perf_counter() - start
    # Before judging, which may fail: what took long is not to be lost.
    save_weights(experiment.classifier.model, folder / f"{task.key}.safetensors")
    if recipe.method == "lbgat":
        save_weights(experiment.guides[0].model, folder / f"{task.key}.guide.safetensors")
    experiment.trainer.history.to_csv(folder / f"{task.key}.history.csv", index=False)
    row = {
        "recipe": recipe.id,
        "eps": recipe.eps,
        "seed": task.seed,
        "part": options.part,
        "selection": "none" if recipe.keep == "last" else recipe.selection,
        **_judge(experiment.classifier, data, task),
        "train_seconds": seconds,
        "n_train": len(training_images(recipe, data)),
        "nb_epochs": int(experiment.trainer.history.epoch.iloc[-1]),
    }
    shutil.rmtree(checkpoints)  # what they were for is done
    path = folder / f"{task.key}.json"
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps({"settings": task.settings, "row": row}, indent=1), encoding="utf-8")
    written.replace(path)
    return row


def first_data(options: StudyOptions) -> DataSet:
    """The data of the runs of the first seed.

    :param options: What is run.
    """
    recipe = next(iter(options.arms.values()))
    return load_recipe_data(recipe, options.root, seed=options.seeds[0], limit=options.limit)


def judged_images(data: DataSet, options: StudyOptions, most: int | None = None) -> Arrays:
    """The images that runs are judged on, as arrays, every beginning with the same number of each class.

    :param data: The data set.
    :param options: Which part, and how many.
    :param most: At most so many, or all.
    """
    images = data.test_images if options.part == "test" else data.validation_images
    n = len(images) if options.n_test is None else max(options.n_test, options.n_autoattack)
    return images.subset(balanced_order(images.y)[: n if most is None else min(n, most)]).arrays()


def _judge(classifier: PyTorchClassifier, data: DataSet, task: Task) -> dict[str, Any]:
    options, recipe = task.options, task.recipe
    x, y = judged_images(data, options)
    n = len(x) if options.n_test is None else min(options.n_test, len(x))
    norm = "inf" if recipe.norm == "inf" else 2
    how: dict[str, Any] = {"eps": recipe.eps, "norm": norm, "seed": task.seed}
    whole = evaluate(classifier, x[:n], y[:n], attacks=("natural", "pgd-20"), **how)
    row = {"natural": whole.accuracy[0], "pgd-20": whole.accuracy[1], "n": n, "flags": ""}
    seconds = whole.seconds.sum()
    if options.n_autoattack:
        part = evaluate(
            classifier, x[: options.n_autoattack], y[: options.n_autoattack], attacks=("autoattack",), **how
        )
        row |= {"autoattack": part.accuracy[0], "flags": part["flags"][0], "autoattack_kind": part.attack[0]}
        seconds += part.seconds.sum()
    return {**row, "n_autoattack": min(options.n_autoattack, len(x)), "judge_seconds": float(seconds)}


def initialize(threads: int) -> None:
    """A worker: its share of the cores; denormals as 0, which are slow on some processors; gone when the study is.

    A study that is killed cannot end its workers, which would go on for the length of a run.

    :param threads: Threads of this process.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
