"""ART's HuggingFaceClassifierPyTorch trains, guides, is attacked and judged as a plain classifier of the same function.

A small stand-in gives logits in an output object, as the models of transformers do; a tiny ViT of transformers itself
runs where that package is installed.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainer
from art.estimators.classification import HuggingFaceClassifierPyTorch
from torch import nn

from art_lbgat import BGATTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import evaluate
from tests.conftest import conv_net, make_classifier, make_data, states_equal
from tests.trainers.cases import HELD, OPTIONS, TRAINERS, pgd

X, Y = make_data(24)


class Outputs(nn.Module):
    """Logits in an object, as ``ImageClassifierOutput`` has them."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.net = conv_net()

    def forward(self, pixel_values, labels=None):
        return SimpleNamespace(loss=labels, logits=self.net(pixel_values))


class Plain(nn.Module):
    def __init__(self, seed, processor):
        super().__init__()
        torch.manual_seed(seed)
        self.net, self.processor = conv_net(), processor

    def forward(self, x):
        return self.net(x if self.processor is None else self.processor(x))


def fgm(classifier):
    return FastGradientMethod(classifier, eps=0.1)


def normalise(x):
    return (x - 0.5) / 0.25


def hugging_face(model, kind=HuggingFaceClassifierPyTorch, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    settings = {"loss": nn.CrossEntropyLoss(), "clip_values": (0.0, 1.0), "device_type": "cpu", **kwargs}
    return kind(model=model, input_shape=(1, 8, 8), nb_classes=4, optimizer=optimizer, **settings)


def twins(processor, seed=0, **kwargs):
    plain, outputs = Plain(seed, processor), Outputs(seed)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)
    pair = hugging_face(outputs, processor=processor, **kwargs), make_classifier(plain, optimizer=optimizer, **kwargs)
    plain.net.load_state_dict(outputs.net.state_dict())  # ART runs it once on random numbers, which BatchNorm counts
    return pair


PROCESSORS = pytest.mark.parametrize("processor", [None, normalise], ids=["no processor", "processor"])


@PROCESSORS
@pytest.mark.parametrize("kwargs", [{}, {"preprocessing": (0.1, 0.9)}], ids=["default", "preprocessing"])
@pytest.mark.parametrize("name", TRAINERS)
def test_training_is_that_of_the_plain_classifier(name, kwargs, processor, tmp_path):
    histories = []
    students, guides = twins(processor, **kwargs), twins(processor, seed=1, **kwargs)
    for i, (student, guide) in enumerate(zip(students, guides, strict=True)):
        options = {"ema_decay": 0.8, "awp_gamma": 0.01, "checkpoint_dir": tmp_path / str(i)}
        trainer = TRAINERS[name](student, guide=guide, **options)
        trainer.fit(X, Y, nb_epochs=2, batch_size=8, validation_data=HELD)
        histories.append(trainer.history.drop(columns=["seconds", "images_per_second"]).to_csv())
    assert histories[0] == histories[1]
    assert states_equal(students[0].model.net.state_dict(), students[1].model.net.state_dict())
    np.testing.assert_array_equal(students[0].predict(X), students[1].predict(X))


@PROCESSORS
def test_attacks_and_evaluation_see_the_processor(processor):
    pair = twins(processor)
    np.testing.assert_array_equal(*(PGDAttack(c, num_random_init=0).generate(X, Y) for c in pair))
    gradient = pair[0].loss_gradient(X, np.eye(4, dtype=np.float32)[Y])
    one = PGDAttack(pair[0], eps=0.1, eps_step=0.05, max_iter=1, num_random_init=0).generate(X, Y)
    np.testing.assert_allclose(one, np.clip(X + 0.05 * np.sign(gradient), 0, 1), atol=1e-7)
    tables = [
        evaluate(c, X, Y, eps=0.1, attacks=["natural", "pgd-3", "transfer", "autoattack", fgm],
                 sources={"s": c}, autoattack=["apgd-ce"]).accuracy.tolist()
        for c in pair
    ]  # fmt: skip
    assert tables[0] == tables[1]


def test_an_art_attack_on_it_and_a_plain_guide():
    student = twins(normalise)[0]
    attack = ProjectedGradientDescent(student, eps=0.03, eps_step=0.01, max_iter=2, verbose=False)
    trainer = BGATTrainer(student, make_classifier(seed=1), attack, **OPTIONS)
    trainer.fit(X, Y, nb_epochs=1, batch_size=8)
    assert trainer.cost.student_forwards == 3
    AdversarialTrainer(student, attack).fit(X, Y, nb_epochs=1)  # and goes on into ART


class Doubled(HuggingFaceClassifierPyTorch):
    def predict(self, x, **kwargs):
        return 2 * super().predict(x, **kwargs)


def test_subclasses_that_change_the_forward_are_refused():
    with pytest.raises(TypeError, match="classifier: Doubled changes predict"):
        TRAINERS["natural"](hugging_face(Outputs(0), Doubled))


def test_a_vit_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, num_labels=4, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    student, guide = (hugging_face(transformers.ViTForImageClassification(config)) for _ in range(2))
    trainer = TRAINERS["lbgat"](student, guide=guide, attack=pgd(student))
    trainer.fit(X, Y, nb_epochs=3, batch_size=8, validation_data=HELD)
    assert trainer.history.loss.is_monotonic_decreasing
    assert (
        len(evaluate(student, X, Y, eps=0.03, attacks=["natural", "pgd-3", "autoattack"], autoattack=["apgd-ce"])) == 3
    )
