"""All benchmarks: ``make bench``, or ``python -m qa.benchmarks [TOPIC ...]``."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # ART's trainers show bars that nothing else turns off
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports each start and stop
os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # compile anew in every run

from rich.console import Console

from qa.benchmarks import data, evaluation, memory, robustness, scaling, startup, steps, toolbox
from qa.benchmarks.report import Settings, Topic, environment, show, write

TOPICS = {
    "step": steps.run,
    "options": steps.options,
    "art": toolbox.run,
    "scaling": scaling.run,
    "memory": memory.run,
    "startup": startup.run,
    "evaluation": evaluation.run,
    "data": data.run,
    "robustness": robustness.run,
}
LONG = ("robustness",)  # hours, so that they are run where they are named


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table per topic, write JSON after each.

    :param arguments: Of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m qa.benchmarks", description=__doc__)
    parser.add_argument(
        "topics", nargs="*", metavar="TOPIC", help=f"of {', '.join(TOPICS)}; all but {LONG} if none is named"
    )
    parser.add_argument("--repeats", type=int, default=Settings.repeats, help="rounds of the main comparisons")
    parser.add_argument("--limit", type=float, default=Settings.limit, help="seconds after which no round is begun")
    parser.add_argument("--root", type=Path, help="where CIFAR-10 lies, for the topic robustness on images too")
    parser.add_argument("--output", type=Path, default=Path("results/bench.json"))
    parser.add_argument("--plot", type=Path, help="draw the scaling as SVG into this file")
    parser.add_argument("--toy", action="store_true", help="the smallest run that goes through every line")
    given = parser.parse_args(arguments)
    unknown = set(given.topics) - set(TOPICS)
    if unknown:
        parser.error(f"unknown topics {sorted(unknown)}; expected some of {', '.join(TOPICS)}")
    settings = Settings(given.repeats, given.toy, given.limit, given.root)
    console, begin = Console(), time.monotonic()
    console.print(", ".join(f"{k} {v}" for k, v in environment().items()), markup=False)
    found: dict[str, Topic] = {}
    seconds: dict[str, float] = {}
    for name in given.topics or [each for each in TOPICS if given.toy or each not in LONG]:
        start = time.monotonic()
        found[name] = TOPICS[name](settings)
        seconds[name] = round(time.monotonic() - start, 1)
        show(found[name])
        if name == "scaling" and given.plot is not None:
            console.print(scaling.draw(found[name], given.plot))
        write(given.output, found, {"repeats": given.repeats, "toy": given.toy, "seconds": seconds})
    console.print(f"{time.monotonic() - begin:.0f} s; written to {given.output}", markup=False)


if __name__ == "__main__":
    main()
