"""LBGAT on the digits over any number of processes: the same script alone, by torchrun, and after a kill.

    python examples/distributed_train.py runs/digits
    torchrun --nproc-per-node 2 examples/distributed_train.py runs/digits-2

Killed or interrupted at any moment, the same command continues where it was. `batch_size` is that of all processes
together. On GPUs each process takes its own: see `device`.
"""

import os
import sys

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lbgat import LBGATTrainer, StepSchedule
from art_lbgat.attacks import PGDAttack
from art_lbgat.data import load_digits
from art_lbgat.models import small_cnn
from art_lbgat.processes import is_main_process


def device() -> str:
    """The device type for ART; with several GPUs this process's own is made the current one."""
    if not torch.cuda.is_available():
        return "cpu"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "gpu"


def build(seed: int) -> PyTorchClassifier:
    torch.manual_seed(seed)  # the same weights in every process
    model = small_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=2e-4)
    return PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        optimizer=optimizer,
        clip_values=(0.0, 1.0),
        device_type=device(),
    )


def main(directory: str, nb_epochs: int = 20) -> None:
    data = load_digits()
    classifier, guide = build(0), build(1)
    attack = PGDAttack(classifier, eps=0.2, eps_step=0.05, max_iter=5)
    trainer = LBGATTrainer(
        classifier,
        guide,
        attack,
        seed=0,
        checkpoint_dir=directory,  # on a disk that all processes see
    )
    trainer.fit(
        *data.train,
        validation_data=data.validation,
        batch_size=64,
        nb_epochs=nb_epochs,
        scheduler=StepSchedule((nb_epochs * 3 // 4,)),
    )
    if is_main_process():  # the others have the same weights and nothing to add
        print(trainer.history[["epoch", "loss", "validation_robust_accuracy", "images_per_second"]].tail(3))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
