"""The trained networks of a study as directories that ``evaluate``, ``predict`` and ``report`` take."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_lbgat.commands.plan import Plan
from art_lbgat.commands.run_directory import RunDirectory
from art_lbgat.commands.training import data_facts
from art_lbgat.data import DataSet
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.study import StudyOptions
from art_lbgat.study.plan import plan_runs
from art_lbgat.study.table import COUNTS, MEASURES

if TYPE_CHECKING:
    import pandas


def keep_models(
    options: StudyOptions, output: Path, runs: pandas.DataFrame, data: DataSet, suffix: str = ""
) -> list[Path]:
    """Write ``<output>/models/<arm>`` for each arm, with the network of the first seed: as a training leaves it.

    :param options: What was run.
    :param output: The directory of the study.
    :param runs: The table of ``run_study``.
    :param data: The data set of the first seed.
    :param suffix: At the end of each name, to tell studies in one directory apart.
    :return: The directories.
    """
    seed, folder, made = options.seeds[0], output / "runs", []
    tasks = {arm: task for arm, task in plan_runs(options)[1] if task.seed == seed}
    facts = data_facts(data)
    for arm, task in tasks.items():
        name = re.sub(r"[^a-z0-9.]+", "-", f"{arm}{suffix}".lower()).strip("-")
        directory = RunDirectory(output / "models" / name)
        root = None if options.root is None else Path(options.root)
        directory.write_plan(Plan(task.recipe, seed=seed, limit=options.limit, root=root), facts)
        shutil.copyfile(folder / f"{task.key}.safetensors", directory.weights)
        shutil.copyfile(folder / f"{task.key}.history.csv", directory.history)
        guides = [folder / f"{key}.safetensors" for key in task.guides] or [folder / f"{task.key}.guide.safetensors"]
        for index, path in enumerate(guides):
            if path.is_file():
                shutil.copyfile(path, directory.guide_weights(index))
        directory.write_results(_results(runs[(runs["arm"] == arm) & (runs["seed"] == seed)].iloc[0], task.recipe))
        made.append(directory.path)
    return made


def _results(run: Any, recipe: Any) -> pandas.DataFrame:
    """The row of a run as the table of ``evaluate``."""
    import pandas

    rows = []
    for measure in (each for each in MEASURES if each in run):
        n = int(run[COUNTS[measure]])
        low, high = Accuracy(round(run[measure] * n), n).interval
        rows.append(
            {
                "attack": run["autoattack_kind"] if measure == "autoattack" else measure,
                "norm": recipe.norm,
                "eps": 0.0 if measure == "natural" else recipe.eps,
                "n": n,
                "accuracy": run[measure],
                "low": low,
                "high": high,
                "flags": run["flags"] if measure == "autoattack" else "",
            }
        )
    return pandas.DataFrame(rows)
