"""AutoAttack shared by two and three processes against one: bit by bit, also killed and resumed by other numbers."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from qa.faults.row import Row
from tests.evaluation import sharded

TEST = "AutoAttack and the table of evaluate on 2 and 3 processes; killed at random batches and resumed by 1, 2 or 3"
ASKED = "examples, flags and accuracies of one process, bit by bit, in every process"
CASES = ("whole", "l2", "masked", "nan", "one batch", "table")
KILLS = ((2, 1), (1, 2), (3, 2), (1, 3), (2, 3))  # how many were killed, and how many went on


def run(seed: int = 0) -> Row:
    """Compare every case, and every resumed run.

    :param seed: Of the batches at which the processes are killed.
    """
    generator, good, failures, recorded = random.Random(seed), 0, [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        expected = {case: sharded.run_case(case, folder) for case in CASES}
        seconds = time.perf_counter() - began
        for number, (killed, _) in enumerate(KILLS):
            # a process runs 9 batches of the first attack, or as many as are left of them to it
            sharded.launch(folder, killed, [f"kill:{number}:{generator.randint(2, 4)}"])
            recorded.append(_entries(folder / str(number)))
        found = {}
        for world in (1, 2, 3):
            resumed = [f"state:{number}" for number, (_, by) in enumerate(KILLS) if by == world]
            cases = [*resumed, *(CASES if world > 1 else ())]
            sharded.launch(folder, world, cases)
            found |= {(world, case): _results(folder, world, case) for case in cases}
    for (world, case), results in found.items():
        whole = expected["whole" if case.startswith("state") else case]
        equal = len(results) == world and all(sharded.same(whole, result) for result in results)
        good += equal
        failures += [] if equal else [f"{case} on {world} processes"]
    notes = (
        f"{len(CASES)} cases, {seconds:.0f} s on one; killed after {min(recorded)} to {max(recorded)} batches on disk"
    )
    return Row(TEST, ASKED, len(found), good, "; ".join([notes, *failures]))


def _entries(path: Path) -> int:
    """Batches in a state directory, without the natural pass."""
    return sum(file.parent.name != "natural" for file in path.glob("*/step-*.safetensors"))


def _results(folder: Path, world: int, case: str) -> list[dict[str, object]]:
    try:
        return sharded.results(folder, world, case)
    except FileNotFoundError:
        return []
