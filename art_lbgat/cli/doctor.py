"""``art-lbgat doctor``: what is installed, and what works."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Literal, NamedTuple

import typer
from packaging.requirements import Requirement

from art_lbgat.cli.output import print_table, say

OPTIONAL = {
    "tensorboard": "--tracker tensorboard",
    "wandb": "--tracker wandb",
    "mlflow": "--tracker mlflow",
    "autoattack": "the authors' AutoAttack, used in place of pyautoattack",
}


class Finding(NamedTuple):
    """One line; ``missing`` is what is not needed."""

    group: str
    name: str
    state: Literal["ok", "missing", "broken", "note"]
    text: str


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show versions, devices, optional packages, and what of RobustBench is stepped round."""
    findings = check_up()
    broken = [each.name for each in findings if each.state == "broken"]
    if json_:
        rows = [each._asdict() for each in findings]
        say(json.dumps({"healthy": not broken, "findings": rows}, indent=2))
    else:
        headers = ("group", "name", "state", "finding")
        print_table(
            "", headers, [(e.group, e.name, e.state, e.text) for e in findings], left=headers, whole=headers[:3]
        )
        say(f"broken: {', '.join(broken)}" if broken else "everything works")
    if broken:
        raise typer.Exit(1)


def check_up() -> list[Finding]:
    """Everything, in the order in which it is shown; nothing is raised."""
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions, "optional": _optional, "devices": _devices, "robustbench": _robustbench,
    }  # fmt: skip
    found: list[Finding] = []
    for name, part in parts.items():
        try:
            found.extend(part())
        except Exception as error:  # noqa: PERF203 (what is broken is what is looked for)
            found.append(Finding(name, name, "broken", f"{type(error).__name__}: {error}"))
    return found


def needed_packages() -> list[str]:
    """What the installed package says it depends on here, extras apart."""
    requirements = [Requirement(each) for each in metadata.requires("art-lbgat") or ()]
    return [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def _versions() -> Iterator[Finding]:
    from art_lbgat import __version__

    yield Finding("versions", "art-lbgat", "ok", __version__)
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("versions", "python", "ok", system)
    for name in needed_packages():
        try:
            yield Finding("versions", name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:  # noqa: PERF203
            yield Finding("versions", name, "broken", f"not installed: pip install {name}")


def _optional() -> Iterator[Finding]:
    for name, use in OPTIONAL.items():
        there = find_spec(name) is not None
        version = "no version" if there else "not installed"
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(name) if there else version
        yield Finding("optional", name, "ok" if there else "missing", f"{version} ({use})")


def _devices() -> Iterator[Finding]:
    import torch

    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    variable = os.environ.get("OMP_NUM_THREADS")
    yield Finding("devices", "cpu", "ok", threads + (f", OMP_NUM_THREADS={variable}" if variable else ""))
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        memory = properties.total_memory / 2**30
        text = f"{properties.name}, {memory:.0f} GiB, compute capability {properties.major}.{properties.minor}"
        yield Finding("devices", f"cuda:{i}", "ok", text)
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Finding("devices", "cuda", "missing", f"no GPU that torch can use; {built}")
    yield Finding("devices", "processes", "ok", f"WORLD_SIZE={os.environ.get('WORLD_SIZE', '1')}")


def _robustbench() -> Iterator[Finding]:
    """Which of the breaks of the published package apply here, and whether it works in spite of them."""
    from art_lbgat.evaluation.autoattack import published_package
    from art_lbgat.robustbench import import_robustbench, list_models

    breaks = {
        "pkg_resources": ("pkg_resources", "it is imported, and setuptools dropped it in release 82"),
        "autoattack": ("autoattack.state", "it is imported, and is not on PyPI; pyautoattack takes its place"),
    }
    for name, (module, why) in breaks.items():
        here = _importable(module)
        yield Finding("robustbench", name, "ok" if here else "note", f"{why}: {'here' if here else 'stepped round'}")
    start = time.perf_counter()
    package = import_robustbench()
    text = f"{metadata.version('robustbench')} in {time.perf_counter() - start:.1f} s"
    yield Finding("robustbench", "import", "ok", text)
    yield Finding("robustbench", "zoo", "ok", f"{len(list_models())} models")
    left = [name for name in breaks if "stand-in" in str(getattr(sys.modules.get(name), "__doc__", ""))]
    state: Literal["ok", "broken"] = "broken" if left else "ok"
    yield Finding("robustbench", "stand-ins", state, f"left behind: {left}" if left else "none left")
    state = "ok" if callable(getattr(package, "benchmark", None)) else "broken"
    yield Finding("robustbench", "benchmark", state, f"AutoAttack of {published_package().__name__}")


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:  # a broken install raises anything
        return False
    return True
