"""Load every network of RobustBench's zoo from a file of its own shape, and write what came of it as a table.

Each network is built, its weights are changed and saved as the zoo keeps them, loaded with ``load_classifier`` and
compared; then one image is classified. Each runs in a process of its own: a crash is a row, and memory is given back.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from art_lbgat.robustbench.zoo import Entry, entries, load_classifier, load_network

COLUMNS = ("name", "dataset", "threat_model", "outcome", "million_parameters", "seconds", "load_seconds",
           "forward_seconds", "peak_gib")  # fmt: skip


def change(content: Any) -> None:
    """Give all weights in the content of a file values that no initialisation gives; the network shares them."""
    if isinstance(content, Mapping):
        for value in content.values():
            change(value)
    elif content.is_floating_point():
        with torch.no_grad():  # little is added, and not to matrices: an ODE solver does not end for any weights
            content.mul_(1.01).add_(0.001 if content.ndim == 1 else 0.0)


def checkpoints(entry: Entry, net: nn.Module) -> list[dict[str, Any]]:
    """The content of each file of weights as the zoo lays it out for this entry."""
    state = net.state_dict()
    if isinstance(entry.published["gdrive_id"], list):
        return _parts(entry, net)
    if entry.name.startswith("Kireev2021Effectiveness") or entry.name == "Andriushchenko2020Understanding":
        return [{"last": state}]
    wrapped = all(name.startswith(("normalize.", "model.")) for name in state)
    return [_inner(state) if wrapped else dict(state)]


def _parts(entry: Entry, net: Any) -> list[dict[str, Any]]:
    if entry.name.startswith("Bai2023Improving"):
        mixer = net.comp_model
        rest = {"model": mixer.policy_net.state_dict(), "bn": mixer.bn.state_dict()}
        return [*(one.state_dict() for one in mixer.models), rest]
    if entry.name.startswith("Bai2024MixedNUTS"):
        robust = net.rob_model.state_dict()
        return [net.std_model.state_dict(), _inner(robust) if entry.dataset == "imagenet" else robust]
    return [one.state_dict() for one in net.models]


def _inner(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the normalising layer around the network."""
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def save(entry: Entry, net: nn.Module, model_dir: Path) -> None:
    """Change the weights of a network of this entry and write the files that it reads."""
    for path, content in zip(entry.files(model_dir), checkpoints(entry, net), strict=True):
        change(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)


def digest(net: nn.Module) -> str:
    """One hash of all names and values."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in net.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy())
    return found.hexdigest()


def check(entry: Entry) -> dict[str, Any]:
    """Build, save, load, compare, classify one image; a row of :data:`COLUMNS` without the memory."""
    start = time.perf_counter()
    net = entry.build()
    size = sum(p.numel() for p in net.parameters()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        save(entry, net, Path(folder))
        expected = digest(net)
        del net
        loading = time.perf_counter()
        classifier = load_classifier(entry.name, entry.dataset, entry.threat_model, folder)
        forward = time.perf_counter()
        logits = classifier.predict(np.full((1, *entry.input_shape), 0.5, np.float32))
        end = time.perf_counter()
        outcome = "loaded"
        if digest(classifier.model) != expected:
            del classifier
            same = digest(load_network(entry, folder)) == expected
            outcome = "loaded; its forward pass changes its weights" if same else "other weights"
    if logits.shape != (1, entry.nb_classes) or not np.isfinite(logits).all():
        outcome += "; logits are not finite"
    return {"outcome": outcome, "million_parameters": round(size, 1), "seconds": round(end - start, 1),
            "load_seconds": round(forward - loading, 1), "forward_seconds": round(end - forward, 2)}  # fmt: skip


def _child(entry: Entry, memory_gib: float, pipe: Any) -> None:
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        with redirect_stdout(sys.stderr):
            row = check(entry)
    except Exception as error:
        row = {"outcome": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pipe.send({**row, "peak_gib": round(peak, 1)})


def check_apart(entry: Entry, memory_gib: float) -> dict[str, Any]:
    """:func:`check` in a process of its own, with at most so much memory."""
    context = multiprocessing.get_context("fork")  # the libraries are imported already
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(entry, memory_gib, sender))
    process.start()
    sender.close()
    try:
        row = receiver.recv()
    except EOFError:
        row = None
    process.join()
    row = row or {"outcome": f"the process ended with exit code {process.exitcode}"}
    return {"name": entry.name, "dataset": entry.dataset, "threat_model": entry.threat_model, **row}


def main() -> None:
    """Read the command line, check, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="only the entries of this name")
    parser.add_argument("--dataset")
    parser.add_argument("--threat-model")
    parser.add_argument("--memory-gib", type=float, default=10.0, help="most memory of one network (default 10)")
    parser.add_argument("--csv", type=Path, help="write the rows to this file, each when it is known")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [e for e in entries(options.dataset, options.threat_model) if options.name in (None, e.name)]
    file = options.csv.open("w", newline="") if options.csv else sys.stdout
    with file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for entry in chosen:
            table.writerow(check_apart(entry, options.memory_gib))
            file.flush()


if __name__ == "__main__":
    main()
