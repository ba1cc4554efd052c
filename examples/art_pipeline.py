"""LBGAT inside an ART pipeline: trained here, attacked, measured and defended with ART. Under a minute.

Run: python examples/art_pipeline.py [nb_epochs] [images]
"""

import sys

import numpy as np
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent, SquareAttack
from art.defences.preprocessor import SpatialSmoothing
from art.defences.preprocessor.preprocessor import Preprocessor
from art.estimators.classification import PyTorchClassifier
from art.evaluations.security_curve import SecurityCurve
from torch import nn

from art_lbgat import LBGATTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.data import load_digits
from art_lbgat.evaluation import evaluate, masking_report, sanity_checks
from art_lbgat.models import small_cnn

NB_EPOCHS, N = (int(given) for given in (*sys.argv[1:3], *("20", "100")[len(sys.argv[1:3]) :]))
EPS, CLIP = 0.2, (0.0, 1.0)
data = load_digits()
x, y = (part[:N] for part in data.test)


def build(model: nn.Module, defence: Preprocessor | None = None) -> PyTorchClassifier:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=2e-4)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10, optimizer=optimizer, clip_values=CLIP,
        preprocessing_defences=defence,
    )  # fmt: skip


def accuracy(classifier: PyTorchClassifier, images: np.ndarray) -> float:
    return float((classifier.predict(images).argmax(1) == y).mean())


torch.manual_seed(0)
np.random.seed(0)
natural, robust = build(small_cnn()), build(small_cnn())
natural.fit(*data.train, batch_size=64, nb_epochs=NB_EPOCHS)  # ART's own training
attack = PGDAttack(robust, eps=EPS, eps_step=EPS / 4, max_iter=5)
trainer = LBGATTrainer(robust, build(small_cnn()), attack, seed=0)
trainer.fit(*data.train, validation_data=data.validation, batch_size=64, nb_epochs=NB_EPOCHS)

# The same two networks behind ART's median filter, a published defence of inputs.
smoothing = SpatialSmoothing(window_size=2, channels_first=True, clip_values=CLIP)
models = {"natural": natural, "LBGAT": robust}
models |= {f"{name}, smoothed": build(classifier.model, smoothing) for name, classifier in models.items()}

print("ART's attacks: accuracy")
for name, classifier in models.items():
    attacks = {
        "FGM": FastGradientMethod(classifier, eps=EPS),
        "PGD-20": ProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 10, max_iter=20, verbose=False),
        "Square": SquareAttack(classifier, eps=EPS, max_iter=300, verbose=False),
    }
    found = {"none": x} | {title: attack.generate(x, y) for title, attack in attacks.items()}
    print(f"  {name:<17}", *(f"{title} {accuracy(classifier, images):6.1%} " for title, images in found.items()))

print("ART's security curve: accuracy under PGD-20 by eps")
for name, classifier in models.items():
    curve = SecurityCurve(eps=[0.05, 0.1, 0.2, 0.4])
    radii, right, _ = curve.evaluate(classifier, x, np.eye(10)[y], eps_step=0.02, max_iter=20, verbose=False)
    hidden = "gradients look masked" if curve.detected_obfuscating_gradients else ""
    print(f"  {name:<17}", *(f"{eps:g}: {value:6.1%} " for eps, value in zip(radii, right, strict=True)), hidden)

print("This package's evaluation of the same, and its checks for a false sense of security")
attacks = ["natural", "pgd-20", "cw-20", "transfer"]
table = evaluate(models, x, y, eps=EPS, attacks=attacks, sources={"natural": natural})
print(table.pivot_table(index="model", columns="attack", values="accuracy", sort=False).round(3).to_string())
for name in ("LBGAT", "LBGAT, smoothed"):
    print(f"{name}: {masking_report(sanity_checks(models[name], x, y, eps=EPS, source=natural))}")
