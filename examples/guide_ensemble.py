"""BGAT with one guide and with an ensemble of different guides: what the robust model learns from them. About a minute.

Run: python examples/guide_ensemble.py [nb_epochs]
"""

import sys

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lbgat import BGATTrainer, NaturalTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.data import load_digits
from art_lbgat.diagnostics import agreement
from art_lbgat.evaluation import evaluate
from art_lbgat.models import small_cnn

NB_EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 25
EPS = 0.2
data = load_digits()


def build(model: nn.Module, preprocessing=(0.0, 1.0)) -> PyTorchClassifier:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=2e-4)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10, optimizer=optimizer, clip_values=(0.0, 1.0),
        preprocessing=preprocessing,
    )  # fmt: skip


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


# Different in architecture, preprocessing and seed; classes, input shape and clip_values are those of the student.
torch.manual_seed(0)
guides = {"CNN": build(small_cnn()), "another CNN": build(small_cnn()), "MLP, standardised": build(mlp(), (0.31, 0.38))}
for guide in guides.values():
    NaturalTrainer(guide, seed=0, verbose=False).fit(*data.train, batch_size=64, nb_epochs=NB_EPOCHS)

students = {}
for title, taught_by in {"one guide": [guides["CNN"]], "three guides": list(guides.values())}.items():
    torch.manual_seed(1)  # the same start for every student
    student = build(small_cnn())
    attack = PGDAttack(student, eps=EPS, eps_step=EPS / 4, max_iter=10)
    trainer = BGATTrainer(student, taught_by, attack, seed=0, verbose=False)  # the mean of their logits
    trainer.fit(*data.train, validation_data=data.validation, batch_size=64, nb_epochs=NB_EPOCHS)
    print(f"{title}: {trainer.cost} per step, guidance loss {trainer.history.guidance_mse.iloc[-1]:.3f}")
    students[title] = student

x, y = data.test
judged = evaluate({**guides, **students}, x, y, eps=EPS, attacks=["natural", "pgd-20"])
print(judged.pivot_table(index="model", columns="attack", values="accuracy", sort=False).round(3).to_string())
for name, guide in guides.items():
    seen = agreement(guide, students, x, y)
    shares = (f"{row.model} {row.agreement:.1%}" for row in seen.itertuples())
    print(f"says what {name} says on natural images:", ", ".join(shares))
