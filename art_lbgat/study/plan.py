"""All runs of a study: guides first, then the arms, in parallel processes; what is on disk is not run again."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_lbgat.checks import check_kind, check_path
from art_lbgat.study.options import StudyOptions, cores
from art_lbgat.study.run import Task, finished, initialize, run

if TYPE_CHECKING:
    import pandas

Report = Callable[[int, int, dict[str, Any]], None]


def run_study(
    options: StudyOptions, output: str | Path | None = None, report: Report | None = None
) -> pandas.DataFrame:
    """Train and judge every arm with every seed.

    Each run writes ``<output>/runs/<recipe>-seed<k>-<settings>.{json,safetensors,history.csv}`` when it ends. Called
    again with the same ``output``, runs that ended are read, and only the others are run.

    :param options: What to run.
    :param output: The folder that keeps the runs; None keeps nothing.
    :param report: Called with (runs done, runs in all, row) after each run.
    :return: A row per arm and seed: ``arm``, ``recipe``, ``eps``, ``seed``, ``natural``, ``pgd-20`` and ``autoattack``
        in [0, 1], the number of images of each, AutoAttack's warnings, seconds of training and of judging.
    :raises TypeError: Arguments of another type.
    :raises NotADirectoryError: If ``output`` is a file.
    """
    import pandas

    check_kind(options, "options", StudyOptions)
    if report is not None and not callable(report):
        raise TypeError(f"report: expected a function (done, total, row), got {report!r}.")
    if output is not None and check_path(output, "output").is_file():
        raise NotADirectoryError(f"output: expected a folder, got the file {output}.")
    guides, arms = plan_runs(options)
    place: Any = tempfile.TemporaryDirectory() if output is None else nullcontext(output)
    with place as root:
        folder = Path(root) / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        stages = [list(guides.values()), list({task.key: task for _, task in arms}.values())]
        stages[1] = [task for task in stages[1] if task.key not in guides]
        rows = _run_all(stages, folder, options, report)
    return pandas.DataFrame([{"arm": arm, **rows[task.key]} for arm, task in arms])


def plan_runs(options: StudyOptions) -> tuple[dict[str, Task], list[tuple[str, Task]]]:
    """The guides' runs by key, and the run of each arm and seed; an arm that is itself such a guide is that run.

    :param options: What to run.
    """
    guides: dict[str, Task] = {}
    arms: list[tuple[str, Task]] = []
    for arm in options.arms:
        recipe = options.recipe(arm)
        for seed in options.seeds:
            keys: list[str] = []
            seen: Counter[str] = Counter()
            for model in recipe.guides if recipe.method == "bgat" else ():
                guide = Task(options.guide_recipe(recipe, model), seed, options, seen[model])
                seen[model] += 1
                guides[guide.key] = guide
                keys.append(guide.key)
            arms.append((arm, Task(recipe, seed, options, guides=tuple(keys))))
    return guides, arms


def _run_all(
    stages: Sequence[Sequence[Task]], folder: Path, options: StudyOptions, report: Report | None
) -> dict[str, dict[str, Any]]:
    """The row of each run by key. A stage begins when the one before it has ended."""
    rows: dict[str, dict[str, Any]] = {}
    total = sum(map(len, stages))

    def ended(task: Task, row: dict[str, Any]) -> None:
        rows[task.key] = row
        if report is not None:
            report(len(rows), total, row)

    processes = options.processes()
    with ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=initialize,
        initargs=(max(1, cores() // processes),),
    ) as pool:
        try:
            for stage in stages:
                futures = {}
                for task in stage:
                    row = finished(task, folder)
                    if row is None:
                        futures[pool.submit(run, task, folder)] = task
                    else:
                        ended(task, row)
                for future in as_completed(futures):
                    ended(futures[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return rows
