"""``make faults``: every fault of the table in docs/reliability.md, injected; the table is written anew."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from qa.faults.row import Row

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- faults: written by make faults -->", "<!-- end of faults -->"


def _call(module: str, function: str = "run", *arguments: int) -> Callable[[], Row]:
    def call() -> Row:
        found: Row = getattr(importlib.import_module(f"qa.faults.{module}"), function)(*arguments)
        return found

    return call


FAULTS: dict[str, Callable[[], Row]] = {
    "kills": _call("kills", "run", 100),
    "damage": _call("damage", "run", 300),
    "disk": _call("disk"),
    "malicious": _call("malicious", "run", 200),
    "bad inputs": _call("bad_inputs", "run", 600),
    "processes": _call("processes", "equal"),
    "fp32": _call("processes", "single_precision"),
    "killed process": _call("processes", "killed"),
    "AutoAttack": _call("sharded_autoattack"),
    "growth": _call("growth", "run", 2000),
    "non-finite": _call("nonfinite"),
    "throughput": _call("throughput"),
}


def main() -> int:
    """Run the faults that are named, or all; print the table, and write it into the page where all were run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*FAULTS, []], help="which; all if left out")
    names = parser.parse_args().only or list(FAULTS)
    logging.getLogger("art_lbgat").propagate = False  # quiet, but to those who listen
    logging.getLogger("art_lbgat").addHandler(logging.NullHandler())
    torch.set_num_threads(1)
    rows, began = [], time.perf_counter()
    for name in names:
        start = time.perf_counter()
        row = FAULTS[name]()
        rows.append((row, time.perf_counter() - start))
        print(f"{name}: {row.good} of {row.tried} in {rows[-1][1]:.0f} s; {row.notes}", flush=True)
    text = table(rows, time.perf_counter() - began)
    if len(names) == len(FAULTS):
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(_BEGIN)[0], page.split(_END)[1]
        PAGE.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}", encoding="utf-8")
        print(f"written to {PAGE.name}")
    return 0 if all(row.good == row.tried for row, _ in rows) else 1


def table(rows: list[tuple[Row, float]], seconds: float) -> str:
    """The table in Markdown, and what it was made on."""
    lines = ["| test | must | tried | as asked | measured | s |", "| --- | --- | ---: | ---: | --- | ---: |"]
    lines += [f"| {r.test} | {r.asked} | {r.tried} | {r.good} | {r.notes} | {s:.0f} |" for r, s in rows]
    made = f"{os.cpu_count()} cores, torch {torch.__version__}, python {platform.python_version()}; {seconds:.0f} s in all."
    return "\n".join([*lines, "", made, ""])


if __name__ == "__main__":
    raise SystemExit(main())
