"""A published method from its recipe, with one thing changed: LBGAT with AWP on the digits, about 20 seconds.

Usage: python examples/recipe.py [epochs]
"""

import sys

from art_lbgat.evaluation import evaluate
from art_lbgat.recipes import RECIPES

# What the paper's own recipe says, to see what "published" means; its data and network need a GPU.
paper = RECIPES["lbgat6-cifar100-wrn34-10"]
print(f"{paper.id}: {paper.objective}, {paper.cost} per step, {paper.published.natural} / {paper.published.autoattack}")

# The same method where a laptop can follow, one field overridden, the best epoch chosen on held-out data.
recipe = RECIPES["digits-lbgat"].override(awp_gamma=5e-3, awp_start_epoch=5, keep="best")
if len(sys.argv) > 1:
    recipe = recipe.scaled(int(sys.argv[1]))
experiment = recipe.build(seed=0, verbose=False)
experiment.fit()

history = experiment.trainer.history
print(history[["epoch", "loss", "eps", "validation_robust_accuracy", "kept"]].to_string(index=False))
print(history.kept_because[history.kept].item())
print(
    evaluate(experiment.classifier, *experiment.data.test, eps=0.2, attacks=("natural", "pgd-20")).to_string(
        index=False
    )
)
