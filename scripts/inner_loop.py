"""Train LBGAT on the digits with each option of a cheaper inner loop, beside K = 10, and print one table.

Run: python scripts/inner_loop.py [--recipe digits-lbgat] [--seeds 3] [--epochs 25]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from art_lbgat.data import balanced_order
from art_lbgat.evaluation import evaluate
from art_lbgat.recipes import RECIPES, Experiment

STEPS, AUTOATTACK_IMAGES = 10, 100


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    :param max_iter: Steps of the attack (``K``).
    :param share: Length of a step, as a share of eps.
    :param attack: Further parameters of the attack.
    :param options: Fields of ``RunOptions``; ``max_iter_warmup_epochs`` as a share of the epochs.
    """

    max_iter: int = STEPS
    share: float = 1 / 4
    attack: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


ARMS = {
    "K = 10": Arm(),
    "early stop, tau = 0": Arm(attack={"early_stop_steps": 0}),
    "early stop, tau = 1": Arm(attack={"early_stop_steps": 1}),
    "early stop, tau = 3": Arm(attack={"early_stop_steps": 3}),
    "K = 2": Arm(2, 1 / 2),
    "K = 2, warm start": Arm(2, 1 / 2, options={"warm_start": True}),
    "steps rise for half of the epochs": Arm(options={"max_iter_warmup_epochs": 0.5}),
    "steps rise for all epochs": Arm(options={"max_iter_warmup_epochs": 1.0}),
}


def build(name: str, arm: Arm, seed: int, epochs: int) -> Experiment:
    """The recipe with the attack and the options of an arm."""
    recipe = RECIPES[name].scaled(epochs)
    experiment = recipe.build(seed=seed, device_type="cpu", verbose=False)
    attack = experiment.trainer.attack
    if attack is None:
        raise ValueError(f"--recipe: expected one that trains on an attack, got {name}.")
    attack.set_params(max_iter=arm.max_iter, eps_step=recipe.eps * arm.share, **arm.attack)
    options = dict(arm.options)
    if "max_iter_warmup_epochs" in options:
        options["max_iter_warmup_epochs"] = round(options["max_iter_warmup_epochs"] * epochs)
    experiment.trainer.options = replace(experiment.trainer.options, **options)
    return experiment


def attack_passes(experiment: Experiment, arm: Arm) -> float:
    """Forward and backward passes of the attack, the mean of a training sample."""
    history = experiment.trainer.history
    if "attack_passes" in history:
        return float(history["attack_passes"].mean())
    natural = int(experiment.recipe.attack == "trades")  # the fixed natural prediction
    steps = history["max_iter"].mean() if "max_iter" in history else arm.max_iter
    return float(2 * steps + natural)


def judge(experiment: Experiment) -> list[float]:
    """Natural, PGD-20 and AutoAttack accuracy on test images, in percent."""
    images = experiment.data.test_images
    x, y = images.subset(balanced_order(images.y)).arrays()
    how: dict[str, Any] = {"eps": experiment.recipe.eps, "norm": "inf", "seed": experiment.seed}
    whole = evaluate(experiment.classifier, x, y, attacks=("natural", "pgd-20"), **how)
    n = AUTOATTACK_IMAGES
    part = evaluate(experiment.classifier, x[:n], y[:n], attacks=("autoattack",), **how)
    return [100 * value for value in (*whole.accuracy, *part.accuracy)]


def measure(name: str, arm: Arm, seed: int, epochs: int) -> list[float]:
    """One run: three accuracies, passes of the attack per sample, processor seconds per epoch."""
    experiment = build(name, arm, seed, epochs)
    start = time.process_time()  # of one thread: what else runs on the machine counts less than in wall time
    experiment.fit()
    seconds = (time.process_time() - start) / epochs
    return [*judge(experiment), attack_passes(experiment, arm), seconds]


def main() -> None:
    """Run all arms, seed by seed, and print means and deviations over seeds, and the time of the fastest seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits-lbgat", choices=[n for n in RECIPES if n.startswith("digits-")])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    start = time.perf_counter()
    found: dict[str, list[list[float]]] = {name: [] for name in ARMS}
    for seed in range(options.seeds):
        for name, arm in ARMS.items():
            found[name].append(measure(options.recipe, arm, seed, options.epochs))
    print("| inner loop | natural % | PGD-20 % | AutoAttack % | attack passes | CPU s per epoch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, rows in found.items():
        values = np.array(rows)
        spread = values.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(values.shape[1])
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(values.mean(axis=0)[:3], spread[:3], strict=True)]
        passes, seconds = values[:, 3].mean(), values[:, 4].min()
        print(f"| {name} | {' | '.join(cells)} | {passes:.1f} | {seconds:.2f} |")
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
