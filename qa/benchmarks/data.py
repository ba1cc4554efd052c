"""Images per second of the data pipeline, random crop and flip, against a torchvision loader without workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from art_lbgat.classifier import TensorView
from art_lbgat.data import Images, as_stream
from art_lbgat.models import create_classifier
from art_lbgat.preserve import Key
from qa.benchmarks.report import Row, Settings, Topic
from qa.benchmarks.timing import Contestant, measure, stat


class _Transformed(Dataset[tuple[Tensor, int]]):
    """The same bytes with torchvision's transforms, image by image."""

    def __init__(self, images: Images, transform: Any) -> None:
        self._x, self._y, self._transform = torch.from_numpy(images.x), images.y, transform

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._x[index]), int(self._y[index])


def _ours(images: Images, batch: int, name: str | None) -> Contestant:
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(images.image_shape)), 10))
    stream = as_stream(images, None, batch, TensorView(create_classifier(net, 10, images.image_shape)), name)

    def epoch() -> None:
        count = sum(len(x) for x, *_ in stream.epoch(Key(0, 1, 1)))
        assert count == len(images)

    return epoch


def _torchvision(images: Images, batch: int, crop: bool) -> Contestant:
    parts = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()] if crop else []
    transform = v2.Compose([*parts, v2.ToDtype(torch.float32, scale=True)])
    loader = DataLoader(_Transformed(images, transform), batch_size=batch, shuffle=True, num_workers=0)

    def epoch() -> None:
        count = sum(len(x) for x, _ in loader)
        assert count == len(images)

    return epoch


def run(settings: Settings) -> Topic:
    """Both pipelines over the same bytes, with augmentation and without."""
    count, batch = (64, 16) if settings.toy else (10_000, 128)
    generator = np.random.default_rng(0)
    x = generator.integers(256, size=(count, 3, 32, 32), dtype=np.uint8)
    images = Images(x, generator.integers(10, size=count))
    rows = []
    for title, name in (("crop + flip", "crop+flip"), ("no augmentation", None)):
        contestants = {
            "ours": _ours(images, batch, name),
            "torchvision": _torchvision(images, batch, name is not None),
        }
        rounds = measure(contestants, settings.repeats, settings.limit)
        speeds = {who: stat([count / seconds for seconds in rounds.seconds[who]]) for who in contestants}
        ratio = rounds.ratio("torchvision", "ours")
        values = {f"{who}, images/s": speed for who, speed in speeds.items()}
        rows.append(Row(f"32x32 as bytes, batch {batch}, {title}", {**values, "ours / torchvision": ratio}))
    return Topic("Data pipeline, shuffled batches to float32, no workers", rows)
