"""A folder of your own images -> a natural classifier, a robust one with LBGAT -> one HTML page about both.

Run: python examples/own_images.py FOLDER [--eps 8] [--nb-epochs 20] [--model small-cnn] [--output results/own-images]

FOLDER holds <class>/*, or train/<class>/* and test/<class>/*: JPEG, PNG or other images; `--size` is what their middle
squares are resized to. `--eps` is in grey levels of 255. `--model` is a name of `art_lbgat.models.list_models()`;
large images want more than the small network.
"""

import argparse
from pathlib import Path

import torch

from art_lbgat import LBGATTrainer, NaturalTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.data import load_image_folder
from art_lbgat.models import create_classifier
from art_lbgat.report import evaluate_for_report, write_report
from art_lbgat.weights import save_weights

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--eps", type=float, default=8)
parser.add_argument("--nb-epochs", type=int, default=20)
parser.add_argument("--size", type=int, default=32)
parser.add_argument("--model", default="small-cnn")
parser.add_argument("--learning-rate", type=float, default=0.02)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--n-test", type=int, default=200, help="test images to judge by AutoAttack")
parser.add_argument("--output", type=Path, default=Path("results/own-images"))
options = parser.parse_args()

data = load_image_folder(options.folder, size=options.size)
eps = options.eps / 255
print(f"{len(data.train_images)} images to train on, {data.input_shape}, classes {', '.join(data.class_names)}")


def build():
    return create_classifier(options.model, data.nb_classes, data.input_shape, learning_rate=options.learning_rate)


torch.manual_seed(0)
natural, guide, robust = build(), build(), build()
run = {"batch_size": options.batch_size, "nb_epochs": options.nb_epochs, "augmentation": "flip"}
run["validation_data"] = data.validation
first = NaturalTrainer(natural, seed=0)
first.fit(data.train_images, **run)

guide.model.load_state_dict(natural.model.state_dict())  # LBGAT's guide starts from the natural model
attack = PGDAttack(robust, eps=eps, eps_step=eps / 4, max_iter=10)
second = LBGATTrainer(robust, guide, attack, seed=0)
second.fit(data.train_images, **run)

options.output.mkdir(parents=True, exist_ok=True)
save_weights(robust.model, options.output / "robust.safetensors")
some = data.test_images.subset(torch.randperm(len(data.test_images))[: options.n_test].numpy())
content = evaluate_for_report(
    robust,
    *some.arrays(),
    eps=eps,
    name="LBGAT",
    title=f"A robust classifier of {options.folder.name}",
    baselines={"natural": natural},
    guide=guide,
    history={"LBGAT": second.history, "natural": first.history},
    class_names=data.class_names,
    config={name: str(value) for name, value in vars(options).items()},
)
table = content.results
print(table[["model", "attack", "n", "accuracy", "low", "high"]].round(3).to_string(index=False))
print(write_report(options.output / "report.html", content), "and", options.output / "robust.safetensors")
