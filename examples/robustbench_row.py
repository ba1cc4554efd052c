"""Train LBGAT on CIFAR-10, run RobustBench's benchmark, print the row among the published ones.

Run: python examples/robustbench_row.py DATA_DIR [--train FOLDER] [--nb-epochs 10] [--limit 20000] [--n-examples 10000]

DATA_DIR is where torchvision keeps CIFAR-10, or holds folders train/<class> and test/<class> of 32x32 images. Killed
during the attacks and started again, it continues where it was.
"""

import argparse
from pathlib import Path

from art_lbgat.recipes import RECIPES
from art_lbgat.robustbench import benchmark, compare
from art_lbgat.weights import load_weights, save_weights

parser = argparse.ArgumentParser()
parser.add_argument("data_dir", type=Path)
parser.add_argument("--train", type=Path, help="a folder of CIFAR-10 images to train on, if not DATA_DIR")
parser.add_argument("--nb-epochs", type=int, default=10)
parser.add_argument("--limit", type=int, default=20_000, help="images to train on")
parser.add_argument("--n-examples", type=int, help="test images to attack; all by default")
parser.add_argument("--output", type=Path, default=Path("results/benchmark"))
options = parser.parse_args()

recipe = RECIPES["cifar10-small-lbgat"].scaled(options.nb_epochs)
experiment = recipe.build(root=options.train or options.data_dir, limit=options.limit, seed=0)
options.output.mkdir(parents=True, exist_ok=True)
weights = options.output / "classifier.safetensors"
if weights.exists():
    load_weights(experiment.classifier.model, weights)
else:
    experiment.fit()
    save_weights(experiment.classifier.model, weights)

result = benchmark(
    experiment.classifier,
    data_dir=options.data_dir,
    n_examples=options.n_examples,
    state_path=options.output / "autoattack",
    model_name="LBGAT small CNN",
    architecture="small CNN",
)
print(result)
print("accuracy after each attack:", {name: f"{value:.2%}" for name, value in result.attacks.items()})
print("seconds of each attack:", {name: round(value, 1) for name, value in result.seconds.items()})
print(compare(result))  # its row, with the rank and the neighbours
result.save(options.output / "result.json")
