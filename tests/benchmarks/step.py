"""Seconds of one training step: ours, the authors' procedure, ART's TRADES trainer, and the floor of bare passes.

Run: ``make bench``. All in one run, interleaved; medians; quote the ratios, the seconds depend on the machine.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainerTRADESPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.nn import functional as F

from art_lbgat import LBGATTrainer, TRADESTrainer
from art_lbgat.attacks import TRADESAttack
from art_lbgat.models import small_cnn
from tests import reference_lbgat as reference

K, EPS, STEP = 10, 0.031, 0.007


class Block(nn.Module):
    """A pre-activation residual block, to have something as deep as the nets of the paper."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.skip = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        skip = x if self.skip is None else self.skip(out)
        return skip + self.conv2(F.relu(self.bn2(self.conv1(out))))


def wrn_10_2():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), Block(16, 32, 1), Block(32, 64, 2), Block(64, 128, 2),
        nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


MODELS = {"digits CNN": (small_cnn, (1, 8, 8)), "WRN-10-2": (wrn_10_2, (3, 32, 32))}


class Net(nn.Module):
    """ART's TRADES trainer computes its training accuracy from the first child of an ``nn.Sequential`` and crashes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def classifier(make, shape):
    model = Net(make())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10, optimizer=optimizer, clip_values=(0.0, 1.0),
        device_type="cpu",
    )  # fmt: skip


def ours(make, shape, x, y, alpha):
    student, guide = classifier(make, shape), classifier(make, shape)
    trainer = LBGATTrainer(student, guide, regularizer="trades", regularizer_weight=alpha, seed=0, verbose=False)
    return lambda: trainer.fit(x, y, batch_size=len(x), nb_epochs=1)


def authors(make, shape, x, y, alpha):
    models = [make(), make()]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4) for m in models]
    x, y = torch.from_numpy(x), torch.from_numpy(y)

    def step():
        x_adv = reference.trades_attack(models[0], x, torch.randn_like(x), EPS, STEP, K)
        reference.step(
            models[0], models[1:], optimizers, x, y, x_adv, learn_guide=True, regularizer="trades", alpha=alpha
        )

    return step


def floor(make, shape, x, y, alpha):
    """The unavoidable passes alone (see ``LBGATTrainer.cost``), in a loop with nothing else."""
    student, guide = make(), make()
    x, y = torch.from_numpy(x), torch.from_numpy(y)

    def step():
        student.eval().requires_grad_(False)
        with torch.no_grad():
            student(x)
        for _ in range(K):
            leaf = x.clone().requires_grad_(True)
            torch.autograd.grad(student(leaf).sum(), leaf)
        student.train().requires_grad_(True)
        adversarial = student(x)
        with torch.set_grad_enabled(alpha > 0):
            natural = student(x)
        loss = adversarial.sum() + guide(x).sum() + (natural.sum() if alpha else 0)
        loss.backward()
        for parameter in (*student.parameters(), *guide.parameters()):
            parameter.grad = None

    return step


def ours_trades(make, shape, x, y, alpha):
    student = classifier(make, shape)
    trainer = TRADESTrainer(student, TRADESAttack(student), beta=alpha, seed=0, verbose=False)
    return lambda: trainer.fit(x, y, batch_size=len(x), nb_epochs=1)


def art_trades(make, shape, x, y, alpha):
    student = classifier(make, shape)
    attack = ProjectedGradientDescent(
        student, eps=EPS, eps_step=STEP, max_iter=K, num_random_init=1, batch_size=len(x), verbose=False
    )
    trainer = AdversarialTrainerTRADESPyTorch(student, attack, beta=alpha)
    one_hot = F.one_hot(torch.from_numpy(y), 10).float().numpy()
    return lambda: trainer._batch_process(x, one_hot)


def measure(steps, repeats):
    """Median seconds of each step, run in turn so that a slow moment of the machine hits all alike."""
    seconds = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("results/bench.json"))
    arguments = parser.parse_args()
    rows = []
    for model, (make, shape) in MODELS.items():
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((arguments.batch_size, *shape), generator=generator).numpy()
        y = torch.randint(10, (arguments.batch_size,), generator=generator).numpy()
        for alpha in (0.0, 6.0):
            steps = {f.__name__: f(make, shape, x, y, alpha) for f in (ours, authors, floor)}
            if alpha:
                steps |= {f.__name__: f(make, shape, x, y, alpha) for f in (ours_trades, art_trades)}
            median = measure(steps, arguments.repeats)
            row = {"model": model, "alpha": alpha, **median, "authors/ours": median["authors"] / median["ours"]}
            row["ours/floor"] = median["ours"] / median["floor"]
            if alpha:
                row["ART/ours (TRADES)"] = median["art_trades"] / median["ours_trades"]
            rows.append(row)
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
