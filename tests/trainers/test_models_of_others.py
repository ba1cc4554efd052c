"""Modules as other libraries make them, and arrays as other libraries hold them: right, or refused by name."""

import collections
import dataclasses

import numpy as np
import pandas
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from art_lbgat import BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.engine.step import NonFiniteError
from art_lbgat.evaluation import evaluate
from art_lbgat.fingerprint import weights_sha256
from tests.conftest import conv_net, make_classifier, make_data, states_equal
from tests.trainers.cases import OPTIONS, pgd

X, Y = make_data(16)
HELD = make_data(8, seed=1)
SERIES = make_data(16, shape=(6, 8))


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


def dense(first=None):
    return nn.Sequential(nn.Flatten(), first or nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


def tensors(module):
    every = {**module.state_dict(), **dict(module.named_buffers())}
    return {name: value.clone() for name, value in every.items() if isinstance(value, torch.Tensor)}


def trained(make, directory, epochs, data=(X, Y), held=HELD):
    """LBGAT with everything on, both models of one kind."""
    shape = data[0].shape[1:]
    classifier, guide = (make_classifier(seeded(make, seed), lr=0.02, shape=shape) for seed in (0, 1))
    trainer = LBGATTrainer(classifier, guide, pgd(classifier), eps_warmup=0.0, awp_gamma=0.005, awp_start_epoch=2, ema_decay=0.5,
                           checkpoint_dir=directory, **OPTIONS)  # fmt: skip
    trainer.fit(*data, batch_size=8, nb_epochs=epochs, validation_data=held)
    return classifier, trainer


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x).mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


class Causal(nn.Module):
    """Attention with its mask of -inf in a buffer, as GPTs have it, or made anew in each forward."""

    def __init__(self, *, held=True):
        super().__init__()
        self.key, self.head, mask = nn.Linear(8, 8), nn.Linear(8, 4), torch.full((6, 6), -torch.inf).triu(1)
        if held:
            self.register_buffer("mask", mask)
        else:
            self.made = lambda: mask.clone()

    def forward(self, x):
        mask = self.mask if hasattr(self, "mask") else self.made()
        return self.head((self.key(x) @ x.transpose(1, 2) + mask).softmax(dim=-1)[:, -2:] @ x)[:, 0]


class Centred(nn.Module):
    """A running mean that its state dict leaves out."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 4)
        self.register_buffer("mean", torch.zeros(64), persistent=False)

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean(dim=0)
        return self.head(4 * (x - self.mean))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1)).relu()))


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(64, 4, dtype=torch.complex64))

    def forward(self, x):
        return (x.flatten(1).to(torch.complex64) @ self.weight).abs()


class Counting(nn.Module):
    """State of its own beside tensors."""

    def __init__(self):
        super().__init__()
        self.head, self.count = nn.Linear(64, 4), 0

    def get_extra_state(self):
        return {"count": self.count, "tensor": torch.tensor([float(self.count)])}

    def set_extra_state(self, state):
        self.count = state["count"]

    def forward(self, x):
        self.count += self.training
        return self.head(x.flatten(1))


def pruned():
    model = dense()
    prune.l1_unstructured(model[1], "weight", 0.5)
    return model


def hooked():
    model = conv_net()
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    model[3].weight.register_hook(lambda gradient: 0.5 * gradient)
    return model


KINDS = {
    "pruned": pruned,
    "spectral norm": lambda: dense(parametrizations.spectral_norm(nn.Linear(64, 16))),
    "orthogonal": lambda: dense(parametrizations.orthogonal(nn.Linear(64, 16))),
    "tied": Tied,
    "complex": Complex,
    "extra state": Counting,
    "hooks": hooked,
    "compiled": lambda: torch.compile(conv_net(), backend="eager"),
    "DataParallel": lambda: nn.DataParallel(conv_net()),
    "instance norm": lambda: nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True), *dense()),
    "batch norm without statistics": lambda: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), *dense()),
    "buffers that no state dict holds": Centred,
    "transformer": Transformer,
    "LSTM": Recurrent,
    "masks of -inf": Causal,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_resumes_to_the_same_bits_and_keeps_what_was_validated(make, tmp_path):
    data = SERIES if make in (Transformer, Recurrent, Causal) else (X, Y)
    held = (data[0][:8], data[1][:8])
    once, trainer = trained(make, tmp_path / "once", 3, data, held)
    trained(make, tmp_path / "twice", 2, data, held)
    twice, _ = trained(make, tmp_path / "twice", 3, data, held)
    assert states_equal(tensors(once.model), tensors(twice.model))
    kept = trainer.history[trainer.history.kept.astype(bool)].iloc[0]
    assert (once.predict(held[0]).argmax(axis=1) == held[1]).mean() == kept.validation_natural_accuracy


def test_a_mask_of_infinities_changes_no_bit_and_is_no_reason_to_stop():
    weights = []
    for held in (True, False):
        classifier = make_classifier(seeded(lambda held=held: Causal(held=held)), shape=(6, 8), lr=0.02)
        trainer = MadryTrainer(classifier, pgd(classifier), ema_decay=0.5, **OPTIONS)
        trainer.fit(*SERIES, nb_epochs=2, batch_size=8)
        weights.append(classifier.model.state_dict())
    assert torch.equal(weights[0].pop("mask"), torch.full((6, 6), -torch.inf).triu(1))
    assert states_equal(*weights)


def test_the_best_epoch_brings_its_buffers_back():
    class Late(Centred):
        """Right in its first epoch alone: from the third step on it gives class 0."""

        def forward(self, x):
            if self.training:
                self.mean = self.mean + 1
            return self.head(x.flatten(1)) + (self.mean[0] > 2) * torch.tensor([100.0, 0, 0, 0])

    classifier = make_classifier(seeded(Late), lr=0.05)
    trainer = NaturalTrainer(classifier, **OPTIONS)
    trainer.fit(X[Y > 0], Y[Y > 0], nb_epochs=3, batch_size=6, validation_data=(X[Y > 0], Y[Y > 0]))
    assert trainer.history.kept.tolist() == [True, False, False]
    assert (classifier.model.mean == 2).all()
    assert (classifier.predict(X[Y > 0]).argmax(axis=1) > 0).any()


def test_statistics_that_overflow_end_the_run_at_its_epoch():
    classifier = make_classifier(clip_values=None)
    with pytest.raises(NonFiniteError, match=r"classifier 1.running_var \(6 of 6 values\)"):
        NaturalTrainer(classifier, **OPTIONS).fit(1e30 * X, Y, nb_epochs=1, batch_size=8)


class Ends(nn.Module):
    def __init__(self, ends):
        super().__init__()
        self.net, self.ends = conv_net(), ends

    def forward(self, x):
        return self.ends(self.net, x, self.training)


def without_graph(net, x, training):
    with torch.no_grad():
        return net(x)


NO_GRAPH = {
    "no_grad": without_graph,
    "detached": lambda net, x, training: net(x).detach() if training else net(x),
    "reentrant": lambda net, x, training: checkpoint(net, x, use_reentrant=True) if training else net(x),
}


@pytest.mark.parametrize("ends", NO_GRAPH.values(), ids=NO_GRAPH)
@pytest.mark.parametrize("kind", [NaturalTrainer, LBGATTrainer])
def test_a_model_that_cannot_learn_is_refused(kind, ends):
    classifier = make_classifier(Ends(ends))
    models = (classifier,) if kind is NaturalTrainer else (make_classifier(), classifier)
    name = "classifier" if kind is NaturalTrainer else "guide"  # its loss has a graph, to the student alone
    with pytest.raises(ValueError, match=f"^{name}: its logits have no graph to its weights"):
        kind(*models, **OPTIONS).fit(X, Y, nb_epochs=1, batch_size=8)


@dataclasses.dataclass
class Output:
    logits: torch.Tensor


Auxiliary = collections.namedtuple("Auxiliary", "logits aux")
OUTPUTS = {
    "dict": lambda net, x, training: {"logits": net(x)},
    "dataclass": lambda net, x, training: Output(net(x)),
    "auxiliary, in training alone": lambda net, x, training: Auxiliary(net(x), net(x)) if training else net(x),
}


@pytest.mark.parametrize("ends", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_that_are_no_tensor_are_told_how_to_become_one(ends):
    with pytest.raises(ValueError, match=r"^classifier: its model must return one tensor .*wrap it .*aux_logits=False"):
        NaturalTrainer(make_classifier(Ends(ends)), **OPTIONS).fit(X, Y, nb_epochs=1)


class Quantised(nn.Module):
    """As dynamic quantisation leaves a layer: weights in a tuple that the state dict holds beside a dtype."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.weight = torch.quantize_per_tensor(torch.linspace(-1, 1, 256).reshape(64, 4), 0.01, 0, torch.qint8)
        self.bias = torch.zeros(2000)
        self.bias[1000] = shift

    def get_extra_state(self):
        return (self.weight, self.bias), torch.qint8

    def set_extra_state(self, state):
        self.weight, self.bias = state[0]

    def forward(self, x):
        return x.flatten(1) @ self.weight.dequantize() + self.bias[[1000, 1, 2, 3]]


class BFloat16(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        self.net = seeded(dense).to(torch.bfloat16)
        with torch.no_grad():
            self.net[1].weight[8, 32] += shift

    def forward(self, x):
        return self.net(x.to(torch.bfloat16))


@pytest.mark.parametrize("make", [Quantised, BFloat16])
def test_frozen_guides_of_other_types_resume_and_are_known_by_all_their_weights(make, tmp_path):
    def fit(epochs, shift=0.0):
        classifier, guide = make_classifier(lr=0.02), make_classifier(make(shift), optimizer=None)
        BGATTrainer(classifier, guide, eps_warmup=0.0, checkpoint_dir=tmp_path, **OPTIONS).fit(
            X, Y, nb_epochs=epochs, batch_size=8
        )
        return len(weights_sha256(guide.model))

    assert fit(1) == fit(2) == 64
    with pytest.raises(ValueError, match=r"resume: the settings are not those of .*guides\[0\].weights: "):
        fit(2, shift=1.0)


def test_gradients_that_stop_at_the_inputs_are_told():
    class Straight(torch.autograd.Function):
        """As quantised kernels are: it has a graph, which leads nowhere."""

        @staticmethod
        def forward(ctx, x, weight):
            return x.flatten(1) @ weight

        @staticmethod
        def backward(ctx, gradient):
            return None, gradient.sum() * torch.ones(64, 4)

    class Kernel(nn.Module):
        def forward(self, x):
            return Straight.apply(x.detach(), torch.ones(64, 4, requires_grad=True))

    classifier = make_classifier(Kernel(), optimizer=None)
    with pytest.raises(ValueError, match=r"its logits have no graph to its inputs"):
        PGDAttack(classifier).generate(X, Y)


def test_an_augmentation_that_cannot_take_the_images_is_named():
    x, y = make_data(8, shape=(4, 8, 8))
    for name, kind in (("autoaugment", "AutoAugment"), ("randaugment", "RandAugment")):
        classifier = make_classifier(conv_net(channels=4), shape=(4, 8, 8))
        with pytest.raises(TypeError, match=rf"^augmentation: {kind} fails on images of shape \(4, 8, 8\).*found 4"):
            NaturalTrainer(classifier, **OPTIONS).fit(x, y, nb_epochs=1, augmentation=name)


COLOURS, LABELS = make_data(16, shape=(3, 8, 8))
HOLDS = {
    "of Fortran": np.asfortranarray,
    "view of NHWC": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
    "turned back": lambda x: x[::-1, ..., ::-1].copy()[::-1, ..., ::-1],
    "every second": lambda x: np.repeat(np.repeat(x, 2, axis=2), 2, axis=3)[:, :, ::2, ::2],
    "big endian": lambda x: x.astype(">f4"),
    "read-only": lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
    "list of tensors": lambda x: list(torch.from_numpy(x)),
    "tensor in channels_last": lambda x: torch.from_numpy(x).contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_how_an_array_is_held_changes_no_bit(hold):
    def run(x):
        classifier = make_classifier(seeded(lambda: conv_net(channels=3)), shape=(3, 8, 8), lr=0.02)
        x_adv = PGDAttack(classifier, num_random_init=0).generate(x, LABELS)
        accuracies = evaluate(classifier, x, LABELS, eps=0.05, attacks=["natural", "pgd-2"]).accuracy.tolist()
        trainer = MadryTrainer(classifier, pgd(classifier), **OPTIONS)
        trainer.fit(x, LABELS, nb_epochs=1, batch_size=8, validation_data=(x, LABELS))
        if isinstance(x, torch.Tensor):
            trainer.fit(DataLoader(TensorDataset(x, torch.from_numpy(LABELS)), batch_size=8), nb_epochs=1)
        return x_adv, accuracies, classifier.model.state_dict()

    given = hold(COLOURS)
    expected, found = run(torch.from_numpy(COLOURS) if isinstance(given, torch.Tensor) else COLOURS), run(given)
    assert np.array_equal(expected[0], found[0])
    assert expected[1] == found[1]
    assert states_equal(expected[2], found[2])


def test_what_is_masked_is_not_taken_for_numbers():
    masked = np.ma.masked_less(X, 0.2)
    for call in (
        lambda: NaturalTrainer(make_classifier(), **OPTIONS).fit(masked, Y, nb_epochs=1),
        lambda: PGDAttack(make_classifier()).generate(masked, Y),
        lambda: evaluate(make_classifier(), masked, Y, eps=0.1, attacks=["natural"]),
    ):
        with pytest.raises(ValueError, match=r"^x: expected an array without masked values, got some"):
            call()
    with pytest.raises(ValueError, match=r"^y: expected an array without masked values, got some"):
        NaturalTrainer(make_classifier(), **OPTIONS).fit(X, np.ma.masked_equal(Y, 3), nb_epochs=1)
    with pytest.raises(ValueError, match=r"^y: expected an array without masked values"):  # NA of pandas
        NaturalTrainer(make_classifier(), **OPTIONS).fit(X, pandas.array([None, *Y[1:]], dtype="Int64"), nb_epochs=1)
    NaturalTrainer(make_classifier(), **OPTIONS).fit(np.ma.masked_array(X), Y, nb_epochs=1)  # nothing is masked
