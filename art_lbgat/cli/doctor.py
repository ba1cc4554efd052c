"""``art-lbgat doctor``: what is installed, and what works."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated

import typer
from packaging.requirements import Requirement

from art_lbgat.cli.output import print_table, say

OPTIONAL = {
    "tensorboard": "--tracker tensorboard",
    "wandb": "--tracker wandb",
    "mlflow": "--tracker mlflow",
    "autoattack": "the authors' AutoAttack, used in place of pyautoattack",
}
Findings = Iterator[
    tuple[str, str, str]
]  # name, state ("ok", "missing" if not needed, "broken", "note"), what is found


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show versions, devices, optional packages, and the RobustBench workarounds in use."""
    found, headers = [], ("group", "name", "state", "finding")
    parts = {"versions": _versions, "optional": _optional, "devices": _devices, "robustbench": _robustbench}
    for group, part in parts.items():
        try:
            found += [(group, *each) for each in part()]
        except Exception as error:  # noqa: PERF203 (what is broken is what is looked for)
            found.append((group, group, "broken", f"{type(error).__name__}: {error}"))
    broken = [name for _, name, state, _ in found if state == "broken"]
    if json_:
        rows = [dict(zip(("group", "name", "state", "text"), each, strict=True)) for each in found]
        say(json.dumps({"healthy": not broken, "findings": rows}, indent=2))
    else:
        print_table("", headers, found, left=headers, whole=headers[:3])
        say(f"broken: {', '.join(broken)}" if broken else "everything works")
    if broken:
        raise typer.Exit(1)


def needed_packages() -> list[str]:
    """What the installed package says it depends on here, extras apart."""
    requirements = [Requirement(each) for each in metadata.requires("art-lbgat") or ()]
    return [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def _versions() -> Findings:
    from art_lbgat import __version__

    yield "art-lbgat", "ok", __version__
    yield "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in needed_packages():
        try:
            yield name, "ok", metadata.version(name)
        except metadata.PackageNotFoundError:  # noqa: PERF203
            yield name, "broken", f"not installed: pip install {name}"


def _optional() -> Findings:
    for name, use in OPTIONAL.items():
        there = find_spec(name) is not None
        version = "no version" if there else "not installed"
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(name) if there else version
        yield name, "ok" if there else "missing", f"{version} ({use})"


def _devices() -> Findings:
    import torch

    variable = os.environ.get("OMP_NUM_THREADS")
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    yield "cpu", "ok", threads + (f", OMP_NUM_THREADS={variable}" if variable else "")
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        yield f"cuda:{i}", "ok", f"{gpu.name}, {memory}, compute capability {gpu.major}.{gpu.minor}"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield "cuda", "missing", f"no GPU that torch can use; {built}"
    yield "processes", "ok", f"WORLD_SIZE={os.environ.get('WORLD_SIZE', '1')}"


def _robustbench() -> Findings:
    """Which defects of the published package apply here, and whether it works in spite of them."""
    from art_lbgat.evaluation.autoattack import published_package
    from art_lbgat.robustbench import import_robustbench, list_models

    breaks = {
        "pkg_resources": ("pkg_resources", "it is imported, and setuptools dropped it in release 82"),
        "autoattack": ("autoattack.state", "it is imported, and is not on PyPI; pyautoattack takes its place"),
    }
    for name, (module, why) in breaks.items():
        try:
            importlib.import_module(module)
        except Exception:  # noqa: PERF203 (a broken install raises anything)
            yield name, "note", f"{why}: workaround in use"
        else:
            yield name, "ok", f"{why}: here"
    start = time.perf_counter()
    package = import_robustbench()
    yield "import", "ok", f"{metadata.version('robustbench')} in {time.perf_counter() - start:.1f} s"
    yield "zoo", "ok", f"{len(list_models())} models"
    left = [name for name in breaks if "stand-in" in str(getattr(sys.modules.get(name), "__doc__", ""))]
    yield "stand-ins", "broken" if left else "ok", f"left behind: {left}" if left else "none left"
    works = callable(getattr(package, "benchmark", None))
    yield "benchmark", "ok" if works else "broken", f"AutoAttack of {published_package().__name__}"
