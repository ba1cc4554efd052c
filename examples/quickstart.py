"""Train LBGAT on real digits, then attack the result with ART. Run: python examples/quickstart.py [nb_epochs]"""

import sys

import torch
from art.attacks.evasion import AutoAttack, AutoProjectedGradientDescent, ProjectedGradientDescent, SquareAttack
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lbgat import LBGATTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.data import load_digits

NB_EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
EPS = 0.2


def build() -> PyTorchClassifier:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=2e-4)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10, optimizer=optimizer, clip_values=(0.0, 1.0)
    )


torch.manual_seed(0)
data = load_digits()
classifier, guide = build(), build()

attack = PGDAttack(classifier, eps=EPS, eps_step=EPS / 4, max_iter=10)
trainer = LBGATTrainer(classifier, guide, attack, seed=0)
trainer.fit(*data.train, validation_data=data.validation, batch_size=64, nb_epochs=NB_EPOCHS)
print(trainer.history[["epoch", "loss", "validation_natural_accuracy", "validation_robust_accuracy"]].tail(3))
print(f"one training step costs {trainer.cost}")

x, y = data.test[0][:100], data.test[1][:100]
print(f"natural           {(classifier.predict(x).argmax(1) == y).mean():.1%}")
parts = [  # of ART's AutoAttack; its default has five restarts of each, and progress bars
    AutoProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 4, max_iter=50, nb_random_init=1, verbose=False),
    SquareAttack(classifier, eps=EPS, max_iter=500, nb_restarts=1, verbose=False),
]
attacks = {
    "ART PGD-20": ProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 10, max_iter=20, verbose=False),
    "ART AutoAttack": AutoAttack(classifier, eps=EPS, attacks=parts),
}
for name, art_attack in attacks.items():
    x_adv = art_attack.generate(x, y)
    print(f"{name:<17} {(classifier.predict(x_adv).argmax(1) == y).mean():.1%}")
