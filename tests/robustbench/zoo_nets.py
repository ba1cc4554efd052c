"""Tiny networks in the place of those of the zoo, and files of weights."""

import torch
from torch import nn

from art_lbgat.robustbench.zoo import find_entry
from tests.conftest import conv_net


def tiny(monkeypatch, name="Standard", dataset="cifar10", threat_model="Linf", classes=10):
    """The entry with a network of a few parameters in place of its own, and that network."""

    def build():
        return nn.Sequential(*conv_net(classes=classes, channels=3)[:-1], nn.Linear(12 * 256, classes))

    entry = find_entry(name, dataset, threat_model)
    monkeypatch.setitem(entry.published, "model", build)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return entry, build()


def put(entry, folder, content):
    """The content in the first file of the entry."""
    path = next(iter(entry.files(folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path
