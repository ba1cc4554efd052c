"""BatchNorm over the samples of all processes, for the length of a fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


@contextmanager
def batchnorm_synchronized(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the block every BatchNorm below these modules is a ``SyncBatchNorm`` with the same parameters and buffers.

    Mean and variance are those of the global batch, as one process would take them. The layers found before are back
    afterwards, with what was learnt. Forward passes in train mode work on CUDA devices only.

    :param modules: The modules that are trained; a BatchNorm that is a module itself stays as it is.
    """
    replaced = []
    for parent in [each for module in modules for each in module.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                new = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
                new.train(child.training)
                setattr(parent, name, new)
                replaced.append((parent, name, child))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            child.training = getattr(parent, name).training
            setattr(parent, name, child)
