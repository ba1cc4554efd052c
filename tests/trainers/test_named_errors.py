"""What torch itself would refuse in its own words names the argument and says what was expected."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import evaluate
from tests.conftest import conv_net, copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import TRAINERS

X, Y = make_data(16)
WORDS = (torch.arange(16 * 12).reshape(16, 12) % 10).float().numpy()


class SAM(torch.optim.SGD):
    """As published: its step needs a closure, and says so when it runs."""

    def step(self, closure=None):
        assert closure is not None, "Sharpness Aware Minimization requires closure"
        return super().step(closure)


class NeedsClosure(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


OPTIMIZERS = {
    "LBFGS": torch.optim.LBFGS,
    "SAM": lambda parameters: SAM(parameters, lr=0.1),
    "NeedsClosure": lambda parameters: NeedsClosure(parameters, lr=0.1),
    "SparseAdam": lambda parameters: torch.optim.SparseAdam(list(parameters)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("build", [TRAINERS["natural"], TRAINERS["lbgat"]])
def test_optimizers_that_cannot_step_so(name, build):
    model = conv_net()
    classifier = make_classifier(model, optimizer=OPTIMIZERS[name](model.parameters()))
    before = copied_state(nn.ParameterList(model.parameters()))
    with pytest.raises((TypeError, AssertionError, RuntimeError), match=f"^optimizer: {name} fails in a plain step"):
        build(classifier).fit(X, Y, nb_epochs=1, batch_size=8)
    assert states_equal(before, copied_state(nn.ParameterList(model.parameters())))


def test_a_class_of_schedulers_is_a_function_of_an_optimizer():
    trainer = TRAINERS["natural"](make_classifier(lr=0.1))
    trainer.fit(X, Y, nb_epochs=3, batch_size=8, scheduler=torch.optim.lr_scheduler.LinearLR)
    assert trainer.history.learning_rate.tolist() == pytest.approx(
        [0.1 / 3, 0.1 * (1 / 3 + 2 / 15), 0.1 * (1 / 3 + 4 / 15)]
    )
    with pytest.raises(TypeError, match=r"^scheduler: expected a function from an optimizer .*ExponentialLR.*gamma"):
        trainer.fit(X, Y, nb_epochs=1, scheduler=torch.optim.lr_scheduler.ExponentialLR)


class Words(nn.Module):
    def __init__(self, cast):
        super().__init__()
        self.embedding, self.linear, self.cast = nn.Embedding(10, 4), nn.Linear(48, 4), cast

    def forward(self, x):
        return self.linear(self.embedding(x.long() if self.cast else x).flatten(1))


def words(cast):
    return make_classifier(Words(cast), shape=(12,), clip_values=(0, 9))


def test_an_embedding_of_whole_numbers():
    with pytest.raises(
        RuntimeError, match=r"^classifier: its model fails on inputs of shape \(8, 12\), torch.float32.*Long"
    ):
        TRAINERS["natural"](words(False)).fit(WORDS, Y, nb_epochs=1, batch_size=8)
    TRAINERS["natural"](words(True)).fit(WORDS, Y, nb_epochs=1, batch_size=8)
    for call in (
        lambda: TRAINERS["madry"](words(True)).fit(WORDS, Y, nb_epochs=1, batch_size=8),
        lambda: PGDAttack(words(True)).generate(WORDS, Y),
    ):
        with pytest.raises(ValueError, match=r"^estimator: its logits have no graph to its inputs"):
            call()


LAZY = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)),
    "convolution": lambda: nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.LazyLinear(4)),
    "batch norm": lambda: nn.Sequential(nn.LazyBatchNorm2d(), nn.Flatten(), nn.Linear(64, 4)),
}


@pytest.mark.parametrize("make", LAZY.values(), ids=LAZY)
def test_lazy_layers(make):
    match = r"(classifier|estimator): its model has lazy layers without a shape"
    with pytest.raises(ValueError, match=match):
        TRAINERS["natural"](make_classifier(make()))
    with pytest.raises(ValueError, match=match):
        evaluate(make_classifier(make(), optimizer=None), X, Y, eps=0.1, attacks=["natural"])
    model = make()
    model(torch.from_numpy(X))
    TRAINERS["madry"](make_classifier(model, lr=0.01)).fit(X, Y, nb_epochs=1, batch_size=8)


PAIRS = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
EMPTY = {
    "TensorDataset": TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0).long()),
    "Subset": Subset(PAIRS, []),
    "DataLoader": DataLoader(PAIRS, batch_size=32, drop_last=True),
    "of an empty set": DataLoader(Subset(PAIRS, [])),
}


@pytest.mark.parametrize("data", EMPTY.values(), ids=EMPTY)
def test_empty_data(data):
    with pytest.raises(ValueError, match=r"^x: (expected at least one sample, got an empty|no batch came)"):
        TRAINERS["natural"](make_classifier()).fit(data, nb_epochs=1)


class Items(Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.item


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ((Image.new("L", (8, 8)), 0), r"x: DataLoader gives no batch of arrays or tensors.*PIL"),
        ((None, 0), r"x: DataLoader gives no batch of arrays or tensors.*NoneType"),
        ({"x": torch.zeros(1, 8, 8), "y": 0}, r"x: every batch must be a pair \(x, y\), got dict"),
        ((torch.zeros(1, 8, 8), 0, 1), r"x: every batch must be a pair \(x, y\), got 3"),
    ],
    ids=["PIL", "None", "dict", "three"],
)
def test_items_that_are_no_pairs_of_numbers(item, match):
    with pytest.raises((ValueError, TypeError), match=match):
        TRAINERS["natural"](make_classifier()).fit(Items(item), nb_epochs=1)
