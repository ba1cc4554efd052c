"""The order of AutoAttack, batch by batch: each attack on what the ones before did not break.

The attacks, their settings and their seeds are the published package's; so are the results, to the bit. What is new is
that every finished batch goes into a :class:`~art_lbgat.evaluation.record.Record`, and is taken from there if it is in,
and that several processes share the batches of each attack.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from art_lbgat.evaluation import autoattack_checks as flags_of
from art_lbgat.evaluation.record import Entry, Record
from art_lbgat.evaluation.sharing import Sharing
from art_lbgat.evaluation.unit import UnitModel
from art_lbgat.preserve import seed_everything

NATURAL = "natural"


class AutoAttackResult(NamedTuple):
    """What AutoAttack found.

    :param x_adv: Adversarial examples in the units of what was attacked, ``(N, ...)``; samples that were not broken
        keep their natural image.
    :param right: Which samples are right naturally, ``(N,)``, bool.
    :param robust: Which of them withstood every attack, ``(N,)``, bool.
    :param accuracies: Accuracy after each attack that was run, each on what the ones before left, in [0, 1]. Attacks
        are left out once nothing is robust.
    :param flags: What was noticed, message by name (``"randomised"``, ``"softmax"``, ``"dynamic"``, ``"zero
        gradients"``, ``"square stronger"``, ``"few classes"``, ``"non-finite logits"``); empty if nothing.
    :param seconds: Seconds of work on each attack, those of earlier sessions and of all processes included.
    """

    x_adv: Tensor
    right: Tensor
    robust: Tensor
    accuracies: dict[str, float]
    flags: dict[str, str]
    seconds: dict[str, float]


def run_attacks(
    runner: Any,
    checks: ModuleType,
    model: UnitModel,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    seed: int,
    record: Record,
    device: torch.device,
    shared: Sharing,
    verbose: bool = False,
) -> AutoAttackResult:
    """Run the attacks of an AutoAttack object; call it where the model is in eval mode and randomness is preserved.

    :param runner: The published ``AutoAttack``, its attacks set up; ``attacks_to_run`` are run in their order.
    :param checks: The module ``checks`` of its package.
    :param model: The model that the runner was made with.
    :param x: Images in [0, 1], ``(N, channels, height, width)``, contiguous.
    :param y: Index labels, ``(N,)``.
    :param batch_size: Samples attacked together.
    :param seed: Seed of each batch of each attack.
    :param record: Finished batches are taken from it and added to it.
    :param device: Where the model is.
    :param shared: The processes that share the batches.
    :param verbose: Whether a progress bar is shown for each attack.
    :return: What was found, in units of [0, 1].
    :raises ValueError: If the logits of natural images are not finite.
    """
    natural = _natural_of_all(checks, model, x, y, batch_size, seed, record, device, shared)
    right = torch.zeros(len(x), dtype=torch.bool)
    right[natural.rows] = True
    robust, x_adv = right.clone(), x.clone()
    flags, seconds = dict(natural.flags), {NATURAL: natural.seconds}
    accuracies: dict[str, float] = {}
    collected = flags_of.collect(runner)
    for attack in runner.attacks_to_run:
        left = robust.nonzero().flatten()
        if not len(left):
            break
        seconds[attack] = 0.0
        _prepared(runner, attack, seed)  # also if all is in the record: fab-t leaves its settings to fab

        def run(place: int, attack: str = attack, left: Tensor = left) -> Entry:
            """The batch at a place."""
            seed_everything(seed)
            rows = left[place : place + batch_size]
            return _attack(runner, attack, model, x, y, rows, seed, collected, device)

        places = range(0, len(left), batch_size)
        with tqdm(total=len(left), desc=attack, unit=" images", disable=not (verbose and shared.is_main)) as bar:
            for first in range(0, len(places), shared.world):
                now = places[first : first + shared.world]
                for place, entry in zip(now, shared.round(record, attack, now, run), strict=True):
                    robust[entry.rows] = False
                    x_adv[entry.rows] = entry.x_adv.to(x_adv)
                    for name, message in entry.flags.items():
                        flags.setdefault(name, message)
                    seconds[attack] += entry.seconds
                    bar.update(min(batch_size, len(left) - place))
                    bar.set_postfix_str(f"robust at most {robust.double().mean():.2%}")
        accuracies[attack] = float(robust.double().mean())
    clean = float(right.double().mean())
    flags.update(flags_of.check_square(checks, {"clean": clean, **accuracies}))
    return AutoAttackResult(x_adv, right, robust, accuracies, flags, seconds)


def _natural_of_all(
    checks: ModuleType,
    model: UnitModel,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    seed: int,
    record: Record,
    device: torch.device,
    shared: Sharing,
) -> Entry:
    """What was found without an attack: every process looks, and takes what the main process or its record says."""

    def recorded() -> dict[int, Entry]:
        found = record.get(NATURAL)
        return {} if found is None else {0: found}

    def checked() -> dict[int, Entry]:
        _check_same(known[0].x_adv, model, x, batch_size, seed, device)
        return {}

    def kept() -> dict[int, Entry]:
        record.add(NATURAL, made[0])
        return {}

    known = shared.of_main(recorded)
    if known:
        shared.each(checked)
        return known[0]
    made = shared.each(lambda: {0: _natural(checks, model, x, y, batch_size, seed, device)})
    shared.of_main(kept)
    return made[0]


def _natural(
    checks: ModuleType, model: UnitModel, x: Tensor, y: Tensor, batch_size: int, seed: int, device: torch.device
) -> Entry:
    """Which samples are right naturally, and what AutoAttack's checks say of the first batch."""
    start = time.perf_counter()
    seed_everything(seed)
    chunks = list(zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True))
    right: list[Tensor] = []
    first = torch.empty(0)
    for images, labels in chunks:
        logits = model(images.to(device))
        first = logits if not right else first
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("classifier: its logits for natural images hold NaN or Inf, so no accuracy has a meaning.")
        right.append((logits.argmax(dim=1) == labels.to(device)).cpu())
    images, labels = chunks[0]
    flags = flags_of.check_defence(checks, model, images.to(device), labels.to(device))
    rows = torch.cat(right).nonzero().flatten()
    return Entry(rows, first.cpu(), flags, time.perf_counter() - start)


def _check_same(
    recorded: Tensor, model: UnitModel, x: Tensor, batch_size: int, seed: int, device: torch.device
) -> None:
    """Whether the model still answers as it did: weights and layers alone do not tell, an attribute may count too."""
    seed_everything(seed)
    logits = model(x[:batch_size].to(device)).cpu()
    scale = float(recorded.abs().max())
    if logits.shape != recorded.shape or not torch.allclose(logits, recorded, rtol=0, atol=1e-3 * scale):
        raise ValueError(
            "state_path: it belongs to another run, so going on would mix two: the model gives other logits for the "
            "same images than it recorded. Take another path, or delete the file."
        )


def _attack(
    runner: Any,
    attack: str,
    model: UnitModel,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    seed: int,
    collected: flags_of.Flags,
    device: torch.device,
) -> Entry:
    """One attack on one batch."""
    start = time.perf_counter()
    collected.messages.clear()
    images, labels = x[rows].to(device), y[rows].to(device)
    with collected.named(flags_of.ZERO_GRADIENTS):
        adversarial = _prepared(runner, attack, seed).perturb(images, labels)
    logits = model(adversarial)
    # logits that are not finite classify nothing, whatever the argmax makes of them
    broken = (logits.max(dim=1)[1] != labels) | ~torch.isfinite(logits).all(dim=1)
    flags = dict(collected.messages)
    if model.non_finite:
        flags[flags_of.NON_FINITE] = f"the logits of some inputs of {attack} hold NaN or Inf, which misleads attacks."
    return Entry(rows[broken.cpu()], adversarial[broken].cpu(), flags, time.perf_counter() - start)


def _prepared(runner: Any, attack: str, seed: int) -> Any:
    """The attack object of a name, set as AutoAttack sets it before each batch."""
    chosen: Any = {"square": runner.square, "apgd-t": runner.apgd_targeted}.get(attack)
    if attack in ("apgd-ce", "apgd-dlr"):
        chosen = runner.apgd
        chosen.loss = attack.removeprefix("apgd-")
    elif attack in ("fab", "fab-t"):
        chosen = runner.fab
        chosen.targeted = attack == "fab-t"
        if chosen.targeted:
            chosen.n_restarts = 1
    chosen.seed = seed
    return chosen
