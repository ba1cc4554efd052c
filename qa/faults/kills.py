"""SIGKILL at random moments of training, also while a checkpoint is being written; then the run goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qa.faults.row import Row
from tests.trainers.cases import TRAINERS, Case

TEST = "SIGKILL at random moments of training (every trainer, also while a checkpoint is being written), then resumed"
ASKED = "weights, optimizers, history and random state of the unkilled run, bit by bit"


def run(kills: int, seed: int = 0) -> Row:
    """Kill runs of every trainer in turn, ``kills`` times in all; each run is killed again and again until it ends.

    :param kills: How many kills have to hit a run that was under way.
    :param seed: Seed of the moments.
    """
    generator, names = random.Random(seed), list(TRAINERS)
    hit = good = torn = runs = mended = 0
    failures: list[str] = []
    expected = {}
    while hit < kills:
        name = names[runs % len(names)]
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            if name not in expected:
                Case(name).fit()  # whatever is made at first use is made before the forks
                began = time.perf_counter()
                expected[name] = _end(Case(name, root / "whole").fit()), time.perf_counter() - began
            digest, seconds = expected[name]
            here = 0
            while here < 4 and hit + here < kills:
                child = os.fork()
                if not child:
                    _leave(lambda: _finish(name, root / "run", root / "result"))  # noqa: B023
                time.sleep(generator.uniform(0.1, 0.9) * seconds)
                os.kill(child, signal.SIGKILL)
                if os.waitpid(child, 0)[1] == 0:
                    break  # it had ended already
                here += 1
                torn += bool(list(root.glob("run/fit-*/.step-*")))
            if not (root / "result").exists():
                _forked(lambda: _finish(name, root / "run", root / "result"))  # noqa: B023
            same = (root / "result").exists() and (root / "result").read_text() == digest
            hit, good, runs, mended = hit + here, good + here * same, runs + 1, mended + bool(here)
            if not same:
                failures.append(f"{name} after {here} kills")
                shutil.copytree(root / "run", f"results/faults/{name}-{runs}", dirs_exist_ok=True)
    if kills >= 40 and not torn:
        good, failures = 0, [*failures, "no kill hit a checkpoint being written"]
    notes = f"{mended} runs of {len(expected)} trainers; {torn} kills hit a checkpoint being written"
    return Row(TEST, ASKED, hit, good, "; ".join([notes, *failures]))


def _finish(name: str, directory: Path, result: Path) -> None:
    result.write_text(_end(Case(name, directory).fit()))


def _end(case: Case) -> str:
    """Everything that a run ends with: the generators as the last step left them, then all else."""
    return f"{case.randomness()} {case.digest()}"


def _forked(work: Callable[[], None]) -> None:
    child = os.fork()
    if not child:
        _leave(work)
    os.waitpid(child, 0)


def _leave(work: Callable[[], None]) -> None:
    """Do the work of a forked child, and end it without the parent's clean-up."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
        code = 0
    finally:
        os._exit(code)
