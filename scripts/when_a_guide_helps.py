"""Small networks on the digits, over learning rates, batch sizes and epochs: which defaults hold, and why.

    python scripts/when_a_guide_helps.py rates --output results/guide      # 20 epochs, batch 64, four rates
    python scripts/when_a_guide_helps.py sizes --output results/guide      # batch 32 and 256, 10 and 60 epochs

Each run is a line of ``<output>/<part>.jsonl``; called again, what is there is not run again. The table is of the 599
test images under PGD-20 (eps 0.2; not AutoAttack): natural / PGD-20 in percent, mean over the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn
from torch.nn import functional

from art_lbgat import BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, TRADESTrainer
from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.data import load_data
from art_lbgat.losses import Term, Terms, with_rms

EPS, STEPS = 0.2, 5
RATES = (0.01, 0.02, 0.05, 0.1)


def labels_as_guide(adversarial: Tensor, guide: Tensor, y: Tensor) -> Terms:
    """A control: the true label in place of the guide's logits, all else as in BGAT's defaults."""
    target = with_rms(functional.one_hot(y, guide.shape[1]).float(), 1.0)
    mse, cross_entropy = functional.mse_loss(adversarial, target), functional.cross_entropy(adversarial, y)
    return {"guidance_labels": Term(mse), "adversarial_ce": Term(cross_entropy)}


def zero_as_guide(adversarial: Tensor, guide: Tensor, y: Tensor) -> Terms:
    """A control: small logits, and no guide ("logit squeezing")."""
    mse, cross_entropy = (
        functional.mse_loss(adversarial, torch.zeros_like(guide)),
        functional.cross_entropy(adversarial, y),
    )
    return {"guidance_zero": Term(mse, 0.3), "adversarial_ce": Term(cross_entropy)}


#: Method and options; ``--part sizes`` runs the first five.
ARMS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "PGD-AT": (MadryTrainer, {}),
    "TRADES (6)": (TRADESTrainer, {}),
    "LBGAT": (LBGATTrainer, {}),
    "BGAT": (BGATTrainer, {}),
    "LBGAT+TRADES (6)": (LBGATTrainer, {"regularizer": "trades"}),
    "PGD-AT, eps grows": (MadryTrainer, {"eps_warmup": 0.3}),
    "TRADES (6), eps grows": (TRADESTrainer, {"eps_warmup": 0.3}),
    "LBGAT as in the paper": (LBGATTrainer, {"preset": "paper"}),
    "BGAT as in the paper": (BGATTrainer, {"preset": "paper"}),
    "BGAT, logits as they are": (BGATTrainer, {"guidance": "mse+ce"}),
    "control: labels as guide": (BGATTrainer, {"guidance": labels_as_guide}),
    "control: zero as guide": (BGATTrainer, {"guidance": zero_as_guide}),
}
NETS = ("plain", "batch-norm", "MLP")


def network(name: str) -> nn.Module:
    """One of three small networks as users write them."""
    if name == "MLP":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )
    layers: list[nn.Module] = []
    for channels, width, stride in ((1, 16, 1), (16, 32, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, padding=1)]
        layers += [nn.BatchNorm2d(width)] if name == "batch-norm" else []
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))


def classifier(net: str, rate: float) -> PyTorchClassifier:
    """The network with plain SGD, momentum and a constant rate."""
    model = network(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=2e-4)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer, clip_values=(0.0, 1.0), device_type="cpu"
    )


def prepare() -> None:
    """A worker: one thread, denormals as 0, and quiet."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def run(arm: str, net: str, rate: float, batch_size: int, nb_epochs: int, seed: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    data = load_data("digits", seed=0)
    trainer, options = ARMS[arm]
    torch.manual_seed(seed)
    student = classifier(net, rate)
    kind = TRADESAttack if trainer is TRADESTrainer or "regularizer" in options else PGDAttack
    attack = kind(student, eps=EPS, eps_step=2.5 * EPS / STEPS, max_iter=STEPS)
    given: list[Any] = [student]
    if trainer is LBGATTrainer:
        given.append(classifier(net, rate))
    if trainer is BGATTrainer:
        torch.manual_seed(seed + 100)
        given.append(classifier(net, 0.05))
        NaturalTrainer(given[1], max_grad_norm=5.0, seed=seed, verbose=False).fit(
            *data.train, batch_size=64, nb_epochs=20
        )
    start = time.perf_counter()
    made = trainer(*given, attack, seed=seed, verbose=False, **options)
    made.fit(*data.train, batch_size=batch_size, nb_epochs=nb_epochs)
    seconds = time.perf_counter() - start
    x, y = data.test
    np.random.seed(0)
    torch.manual_seed(0)
    x_adv = PGDAttack(student, eps=EPS, eps_step=EPS / 8, max_iter=20).generate(x, y)
    right = [student.predict(each).argmax(axis=1) == y for each in (x, x_adv)]
    keys = {"arm": arm, "net": net, "rate": rate, "batch_size": batch_size, "nb_epochs": nb_epochs, "seed": seed}
    return {**keys, "natural": right[0].mean(), "pgd-20": (right[0] & right[1]).mean(), "seconds": seconds}


def plan(part: str, seeds: int) -> list[tuple[Any, ...]]:
    """The arguments of every run."""
    if part == "rates":
        cells = itertools.product(range(seeds), NETS, RATES[::-1], (64,), (20,), ARMS)
    else:
        cells = itertools.product(range(seeds), NETS, (0.1, 0.01), (32, 256), (10, 60), list(ARMS)[:5])
    return [(arm, net, rate, batch, epochs, seed) for seed, net, rate, batch, epochs, arm in cells]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row for each arm, a column for each network and setting."""
    columns = list(dict.fromkeys((r["net"], r["rate"], r["batch_size"], r["nb_epochs"]) for r in rows))
    one = len({each[2:] for each in columns}) == 1
    heads = [f"{net}, {rate:g}" + ("" if one else f", {batch} x {epochs}") for net, rate, batch, epochs in columns]
    lines = ["| method | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(columns)]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = []
        for column in columns:
            found = [
                r for r in rows if (r["arm"], r["net"], r["rate"], r["batch_size"], r["nb_epochs"]) == (arm, *column)
            ]
            means = [100 * sum(r[name] for r in found) / len(found) for name in ("natural", "pgd-20")] if found else []
            cells.append(" / ".join(f"{mean:.1f}" for mean in means))
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rates", "sizes"))
    parser.add_argument("--output", type=Path, default=Path("results/guide"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / f"{given.part}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    names = ("arm", "net", "rate", "batch_size", "nb_epochs", "seed")
    done = {tuple(row[name] for name in names) for row in rows}
    planned = plan(given.part, given.seeds)
    missing = [each for each in planned if each not in done]
    with ProcessPoolExecutor(given.workers, initializer=prepare) as pool, path.open("a") as file:
        for row in pool.map(run, *zip(*missing, strict=True)) if missing else ():
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    print(table([row for row in rows if tuple(row[name] for name in names) in planned]))


if __name__ == "__main__":
    main()
