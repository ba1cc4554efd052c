"""Memory that runs out: evaluation goes on in smaller chunks with the same numbers, training says what to set."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat import MadryTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import evaluate
from art_lbgat.memory import explained_out_of_memory, in_chunks, is_out_of_memory, to_device
from tests.conftest import conv_net, make_classifier, make_data

X, Y = make_data(40)


def out_of_memory():
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Small(nn.Module):
    """Runs out of memory above so many samples."""

    def __init__(self, most):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.most, self.sizes = conv_net(), most, []

    def forward(self, x):
        if len(x) > self.most:
            raise out_of_memory()
        self.sizes.append(len(x))
        return self.model(x)


@pytest.mark.parametrize(
    "error",
    [
        out_of_memory(),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
    ],
)
def test_it_is_recognised(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(("most", "sizes"), [(40, [40]), (20, [20, 20]), (7, [5] * 8), (1, [1] * 40)])
def test_chunks_are_halved_and_nothing_is_lost(most, sizes, caplog):
    seen = []

    def double(index):
        if len(index) > most:
            raise out_of_memory()
        seen.append(len(index))
        return 2 * index

    with caplog.at_level(logging.WARNING):
        assert torch.equal(in_chunks(double, torch.arange(40), 64), 2 * torch.arange(40))
    assert seen == sizes
    assert len(caplog.records) == {40: 0, 20: 1, 7: 3, 1: 5}[most]


def test_what_cannot_be_halved_and_other_errors_are_raised():
    def never(index):
        raise out_of_memory()

    def other(index):
        raise KeyError("mine")

    with pytest.raises(torch.OutOfMemoryError):
        in_chunks(never, torch.arange(8), 4)
    with pytest.raises(KeyError):
        in_chunks(other, torch.arange(8), 4)


def test_evaluation_goes_on_with_the_same_numbers():
    attacks = ["natural", "pgd-5", "cw-5"]
    tables = []
    for most in (250, 6):
        module = Small(most)
        classifier = make_classifier(module)
        tables.append(evaluate(classifier, X, Y, eps=0.05, attacks=attacks))
    assert tables[0].accuracy.tolist() == tables[1].accuracy.tolist()
    assert max(module.sizes) == 5


def test_training_says_what_to_set_and_leaves_the_model_as_found():
    module = Small(10)
    classifier = make_classifier(module)
    attack = PGDAttack(classifier, eps=0.1, eps_step=0.05, max_iter=2)
    trainer = MadryTrainer(classifier, attack, seed=0, verbose=False)
    modes = [m.training for m in module.modules()]
    with pytest.raises(
        RuntimeError, match=r"^batch_size: memory ran out in training with 16 samples at a time"
    ) as error:
        trainer.fit(X, Y, batch_size=16, nb_epochs=1)
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)
    assert "precision='bf16'" in str(error.value)
    assert [m.training for m in module.modules()] == modes
    trainer.fit(X, Y, batch_size=10, nb_epochs=1)
    with pytest.raises(KeyError), explained_out_of_memory(None):
        raise KeyError("mine")


def test_moving_to_the_same_device_copies_nothing():
    x = torch.from_numpy(np.ones(3, dtype=np.float32))
    assert to_device(x, torch.device("cpu")) is x
