"""Examples of the suite's own attacks: gradient ascent with restarts, and random noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from art_lbgat.attacks.pgd import Ascent, ascend, draw_start
from art_lbgat.attacks.projections import clip, unit_gaussian, unit_uniform
from art_lbgat.evaluation.plan import Threat
from art_lbgat.evaluation.subject import Subject
from art_lbgat.memory import in_chunks
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

DRAWS = 10  # of noise: half uniform in the ball, half at its corners (Linf) or on its sphere (L2)


def gradient_examples(subject: Subject, ascent: Ascent, restarts: int, rows: Tensor) -> Tensor:
    """``x_{t+1} = project(x_t + eps_step * direction(grad loss(M(x_t))))`` from ``restarts`` random starts.

    The starts are drawn for all samples, so that they depend neither on the batch size nor on which samples are
    attacked. A sample that one start breaks is left alone by the next: the worst case over the restarts is kept.

    :param subject: The classifier and its samples.
    :param ascent: What to run; one start if it is at ``x`` itself.
    :param restarts: Number of starts.
    :param rows: Which samples to attack, bool ``(n,)``.
    :return: ``(n, ...)``; samples that are not attacked keep ``x``.
    """
    generator = torch.Generator().manual_seed(subject.seed)
    x_adv, left = subject.x.clone(), rows.clone()
    repeats = 1 if ascent.start == "none" else restarts
    for restart in range(repeats):
        unit = draw_start(ascent, subject.x, generator)
        index = left.nonzero().squeeze(1)
        if not len(index):
            break
        x_adv[index] = _ascend_rows(subject, ascent, unit, index, restart)
        if restart + 1 < repeats:
            left = subject.judge(x_adv, left)[0]
    return x_adv


def _ascend_rows(subject: Subject, ascent: Ascent, unit: Tensor | None, index: Tensor, restart: int) -> Tensor:
    view = subject.view

    def chunk_examples(chunk: Tensor) -> Tensor:
        """Those of some samples."""
        start = None if unit is None else unit[chunk].to(view.device)
        x, y = subject.x[chunk].to(view.device), subject.y[chunk].to(view.device)
        return ascend(ascent, view.logits, x, y, view.bounds(), [start]).cpu()

    with plain_autograd(view.device), evaluating(view.module), preserved_randomness():
        seed_everything(subject.seed + restart)
        return in_chunks(chunk_examples, index, subject.batch_size)


def noise_examples(subject: Subject, threat: Threat, rows: Tensor) -> Tensor:
    """``clip(x + eps * u)`` for :data:`DRAWS` random ``u`` of the unit ball; the first that breaks a sample is kept.

    :param subject: The classifier and its samples.
    :param threat: The ball.
    :param rows: Which samples to look at, bool ``(n,)``.
    :return: ``(n, ...)``; samples that are not looked at keep ``x``.
    """
    generator = torch.Generator().manual_seed(subject.seed)
    x_adv, left = subject.x.clone(), rows.clone()
    for draw in range(DRAWS):
        inside = draw % 2 == 0
        unit = unit_uniform(subject.x, threat.norm, generator) if inside else _corner(subject.x, threat.norm, generator)
        x_adv[left] = clip(subject.x + threat.eps * unit, subject.bounds())[left]
        left = subject.judge(x_adv, left)[0]
    return x_adv


def _corner(x: Tensor, norm: float, generator: torch.Generator) -> Tensor:
    """Random signs (Linf) or directions of length 1 (L2)."""
    unit = unit_gaussian(x, generator)
    if norm == math.inf:
        return torch.where(unit >= 0, 1.0, -1.0)
    length = unit.flatten(1).norm(dim=1).clamp_min(torch.finfo(unit.dtype).tiny)
    direction: Tensor = unit / length.reshape(-1, *[1] * (unit.ndim - 1))
    return direction
