"""What the options that round otherwise do to a training: LBGAT on the digits, three seeds, beside the exact run.

    python scripts/deviation.py [--seeds 3] [--nb-epochs 25]

"pixels" is the share of the pixels of x_adv that differ in the first batch, "loss" the relative difference of the loss
of the first epoch; the accuracies are means over seeds, of the test images, under PGD-20 in fp32.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from typing import Any

from torch import Tensor

from art_lbgat.engine.history import StepRecord
from art_lbgat.evaluation import evaluate
from art_lbgat.recipes import RECIPES, Experiment

VARIANTS: dict[str, dict[str, Any]] = {
    "exact": {},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "compile + channels_last": {"compile": True, "channels_last": True},
    "attack_precision bf16": {"attack_precision": "bf16"},
    "precision bf16": {"precision": "bf16"},
    "precision bf16, attack fp32": {"precision": "bf16", "attack_precision": "fp32"},
}


def build(options: dict[str, Any], seed: int, nb_epochs: int) -> Experiment:
    """The experiment of the recipe with other options of the run."""
    experiment = RECIPES["digits-lbgat"].scaled(nb_epochs).build(seed=seed, verbose=False)
    experiment.trainer.options = replace(experiment.trainer.options, **options)
    return experiment


def first_examples(options: dict[str, Any], seed: int) -> Tensor:
    """x_adv of the first batch at the initial weights."""
    found: list[Tensor] = []

    def keep(step: StepRecord) -> None:
        if not found and step.x_adv is not None:
            found.append(step.x_adv.clone())

    build({**options, "on_step": keep}, seed, 1).fit()
    return found[0]


def main() -> None:
    """Train all variants, print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nb-epochs", type=int, default=25)
    arguments = parser.parse_args()
    exact_examples = first_examples({}, 0)
    exact_loss: list[float] = []
    print("| options | pixels | loss | natural % | PGD-20 % |\n| --- | ---: | ---: | ---: | ---: |")
    for name, options in VARIANTS.items():
        pixels = float((first_examples(options, 0) != exact_examples).double().mean())
        losses, natural, robust = [], [], []
        for seed in range(arguments.seeds):
            experiment = build(options, seed, arguments.nb_epochs)
            experiment.fit()
            losses.append(float(experiment.trainer.history.loss[0]))
            table = evaluate(experiment.classifier, *experiment.data.test, eps=0.3, attacks=("natural", "pgd-20"))
            natural.append(100 * table.accuracy[0])
            robust.append(100 * table.accuracy[1])
        exact_loss = exact_loss or losses
        off = max(abs(a - b) / b for a, b in zip(losses, exact_loss, strict=True))
        mean = " | ".join(f"{statistics.mean(v):.1f} ± {statistics.pstdev(v):.1f}" for v in (natural, robust))
        print(f"| {name} | {pixels:.2%} | {off:.1e} | {mean} |", flush=True)


if __name__ == "__main__":
    main()
