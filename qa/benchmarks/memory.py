"""Peak memory of a training step, to the byte, and whether the process grows with the steps."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from art.data_generators import DataGenerator
from torch.profiler import ProfilerActivity, profile

from qa.benchmarks.contestants import Task, authors, ours, trainer
from qa.benchmarks.models import find_model, make_data
from qa.benchmarks.report import Row, Settings, Target, Topic, Value
from qa.benchmarks.steps import row_name

ROOT = Path(__file__).parents[2]


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most that ``run`` holds at once beyond what was held before it.

    Exact: the profiler records every allocation and release of torch's CPU allocator, so activations, gradients,
    buffers inside operations and temporaries all count, and what exists already (weights, momentum) does not. Memory
    of the process would not do: the allocator of the C library keeps pages that are free.

    :param run: Called once; what it keeps counts.
    :return: Bytes.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler
    changes = [(e.start_ns(), e.nbytes()) for e in results.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda event: event[0]):
        held += change
        peak = max(peak, held)
    return peak


class _Sampled(DataGenerator):  # type: ignore[misc]
    """One batch over and over; reads the memory of the process at some steps."""

    def __init__(self, task: Task, at: tuple[int, ...]) -> None:
        super().__init__(size=task.batch * (max(at) + 1), batch_size=task.batch)
        self._data = make_data(find_model(task.model).shape, task.batch)
        self._at, self._step = at, 0
        self.resident: list[int] = []

    def get_batch(self) -> tuple[Any, Any]:
        """The batch."""
        if self._step in self._at:
            self.resident.append(resident_bytes())
        self._step += 1
        return self._data


def resident_bytes() -> int:
    """Resident memory of this process; its peak where the system has no ``/proc``."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth(task: Task, first: int, last: int) -> list[int]:
    """Resident memory before two steps of one epoch.

    :param task: What is trained.
    :param first: Steps before the first reading.
    :param last: Steps before the second.
    :return: Both, in bytes.
    """
    generator = _Sampled(task, (first, last))
    trainer(task).fit_generator(generator, nb_epochs=1)
    return generator.resident


def _growth_in_fresh_process(task: Task, first: int, last: int) -> list[int]:
    code = (
        "import json; from qa.benchmarks.memory import growth; from qa.benchmarks.contestants import Task; "
        f"print(json.dumps(growth({task!r}, {first}, {last})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(settings: Settings) -> Topic:
    """Peak memory of one step, ours against the authors' procedure; growth of the process."""
    rows, targets = [], []
    for alpha in (0.0, 6.0):
        task = Task("wrn-10-2", 64, alpha)
        if settings.toy:
            task = Task("digits-cnn", 8, alpha, k=2)
        peaks = {}
        for name, contestant in (("ours", ours(task)), ("authors", authors(task))):
            contestant()  # momentum and everything that is made once
            peaks[name] = peak_bytes(contestant)
        values: dict[str, Value] = {f"{name}, MiB": peak / 2**20 for name, peak in peaks.items()}
        rows.append(Row(row_name(task), {**values, "ours / authors": peaks["ours"] / peaks["authors"]}))
    targets.append(Target("wrn-10-2, batch 64, a=0", "ours / authors", "at most", 0.6))
    first, last = (2, 4) if settings.toy else (50, 250)
    task = Task("digits-cnn", 8 if settings.toy else 64, 6.0)
    before, after = _growth_in_fresh_process(task, first, last)
    name = f"process, step {first} to {last}, {row_name(task)}"
    percent = 100 * (after - before) / before
    rows.append(Row(name, {"before, MiB": before / 2**20, "after, MiB": after / 2**20, "growth, %": percent}))
    targets.append(Target(name, "growth, %", "at most", 1.0))
    notes = [
        "Peak of torch's CPU allocator during one step beyond what was there before: weights and momentum do not count.",
        "Growth: resident memory in a fresh process, inside one epoch.",
    ]
    return Topic("Memory", rows, notes, [] if settings.toy else targets)
