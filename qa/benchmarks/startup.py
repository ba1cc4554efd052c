"""Seconds of ``import art_lbgat`` beyond torch and ART, in fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from qa.benchmarks.report import Row, Settings, Target, Topic
from qa.benchmarks.timing import stat

ROOT = Path(__file__).parents[2]
OWN = "import art_lbgat"
_TIMED = """
import importlib, json, sys, time
seconds, start = [], time.perf_counter()
for names in json.loads(sys.argv[1]):
    for name in names:
        if name not in sys.modules:
            importlib.import_module(name)
    seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
print(json.dumps(seconds))
"""


def _run(stages: list[list[str]]) -> list[float]:
    command = [sys.executable, "-c", _TIMED, json.dumps(stages)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(settings: Settings) -> Topic:
    """Each import after the ones above it, in interpreters of its own."""
    loaded = [name for name in sys.modules if name.startswith("art.")]
    stages = {
        "import torch": ["torch"],
        "import art": ["art"],
        "modules of ART beyond these": loaded,
        OWN: ["art_lbgat", "art_lbgat.trainers"],  # the names are loaded when they are asked for
    }
    rounds = [_run(list(stages.values())) for _ in range(1 if settings.toy else 5)]
    times = {name: stat([seconds[i] for seconds in rounds]) for i, name in enumerate(stages)}
    rows = [Row(name, {"s": time}) for name, time in times.items()]
    notes = ["Each line after the ones above it; `import art` loads torch and its own dependencies by itself."]
    return Topic("Start-up", rows, notes, [] if settings.toy else [Target(OWN, "s", "at most", 0.3)])
