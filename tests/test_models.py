"""Networks by name: they are the libraries' own, take the shapes they promise, and train as ART classifiers."""

import copy
import pickle  # noqa: TID251 (what spawned processes use)
import subprocess
import sys

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from art_lbgat.fingerprint import module_layout
from art_lbgat.models import create_classifier, create_model, list_models
from art_lbgat.robustbench_import import import_architecture
from tests.conftest import conv_net, copied_state, make_data, mlp, states_equal

SMALL = ("wrn-10-1", "preact-resnet-18", "resnet-18", "resnet-18-guide")
SHAPES = ((3, 32, 32), (3, 64, 64), (1, 8, 8), (3, 40, 36), (4, 16, 32))


def built(name, *args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return create_model(name, *args, **kwargs).eval()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_shapes_made_for_cifar(name, shape):
    model = built(name, 7, shape)
    x = torch.rand(2, *shape)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 7)
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), logits)  # spawned processes are sent it
        # One image does not change the other, which a fixed pooling on a larger map would mix up in silence.
        torch.testing.assert_close(model(x[:1]), logits[:1], rtol=1e-4, atol=1e-5)
    assert states_equal(dict(model.named_buffers()), dict(built(name, 7, shape).named_buffers()))
    usual = built(name, 7)
    assert list(model.state_dict()) == list(usual.state_dict())
    if shape[0] == 3:
        model.load_state_dict(usual.state_dict(), strict=True)


def multiplications(name):
    """Of the convolutions and linear layers for one image of CIFAR."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        create_model(name, 10).eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops() / 2


def test_guide_costs_3_2_times_the_usual_resnet():
    guide, usual = multiplications("resnet-18-guide"), multiplications("resnet-18")
    assert usual == pytest.approx(0.556e9, rel=0.01)
    assert guide / usual == pytest.approx(3.2, abs=0.05)


@pytest.mark.parametrize("name", [*SMALL, "wrn-34-10", "wrn-34-20", "inception-resnet-v2", "small-cnn"])
def test_every_name_builds_on_the_meta_device(name):
    with torch.device("meta"):
        model = create_model(name, 100)
        assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_networks_are_those_of_the_libraries():
    wide, resnet = import_architecture("wide_resnet"), import_architecture("resnet")
    networks = {"wrn-10-1": lambda: wide.WideResNet(depth=10, widen_factor=1), "resnet-18": resnet.ResNet18}
    x = torch.rand(2, 3, 32, 32)
    for name, published in networks.items():
        torch.manual_seed(0)
        net, model = published().eval(), built(name, 10)
        assert type(model) is type(net)
        assert states_equal(model.state_dict(), net.state_dict())
        assert torch.equal(model(x), net(x))


@pytest.mark.parametrize("name", ["wrn-10-1", "preact-resnet-18", "resnet-18"])
def test_larger_images_are_averaged_over_all_pixels(name):
    """With padding that wraps around, a tiled image has a tiled map, whose mean is that of one tile."""
    small, large = built(name, 5), built(name, 5, (3, 64, 64))
    for model in (small, large):
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                module.padding_mode = "circular"
                module._reversed_padding_repeated_twice = [p for p in reversed(module.padding) for _ in range(2)]
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(large(x.tile(1, 1, 2, 2)), small(x), rtol=1e-4, atol=1e-4)


ACTIVATED = ("small-cnn", "wrn-10-1", "resnet-18", "preact-resnet-18", "resnet-18-guide")


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 64, 64)], ids=str)
@pytest.mark.parametrize("name", ACTIVATED)
def test_another_activation_is_in_every_place_and_changes_nothing_else(name, shape, monkeypatch):
    """Against the plain network, in which every ReLU computes SiLU while it runs."""
    plain, model = built(name, 7, shape), built(f"{name}:silu", 7, shape)
    assert states_equal(plain.state_dict(), model.state_dict())
    assert module_layout(plain) != module_layout(model)
    x = torch.rand(2, *shape)
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(built(f"{name}:relu", 7, shape)(x), plain(x))
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert torch.equal(other(x), logits)
            for parameter in other.parameters():
                parameter.zero_()
        assert torch.equal(model(x), logits)  # the copies run themselves
        if (name, shape) != ("preact-resnet-18", (3, 64, 64)):  # there a hook activates once more, which ReLU allows
            silu = torch.nn.functional.silu
            monkeypatch.setattr(torch.nn.functional, "relu", lambda x, inplace=False: silu(x))
            torch.testing.assert_close(plain(x), logits)


@pytest.mark.parametrize("name", ["resnet-18:gelu", "inception-resnet-v2:silu", "resnet-18:"])
def test_other_activations_are_refused(name):
    with pytest.raises(
        ValueError, match=r"name: expected ':relu' or ':silu' behind wrn-<depth>-<width>, small-cnn, .*got"
    ):
        create_model(name, 7)


def test_norms_and_biases_need_not_decay():
    classifier = create_classifier("small-cnn", 4, (1, 8, 8), decay_norms=False, weight_decay=0.1, label_smoothing=0.2)
    decayed, others = classifier.optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"], decayed["lr"]) == (0.1, 0.0, others["lr"])
    named = dict(classifier.model.named_parameters())
    layers = dict(classifier.model.named_modules())
    for name, parameter in named.items():
        layer, _, kind = name.rpartition(".")
        plain = kind == "bias" or isinstance(layers[layer], nn.BatchNorm2d)
        assert any(parameter is p for p in (others if plain else decayed)["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(named)
    assert classifier.loss.label_smoothing == 0.2
    (group,) = create_classifier("small-cnn", 4, (1, 8, 8), weight_decay=0.1).optimizer.param_groups
    assert (len(group["params"]), group["weight_decay"]) == (len(named), 0.1)
    assert len(create_classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False)), 4, (1, 8, 8), decay_norms=False)
               .optimizer.param_groups) == 1  # fmt: skip


def test_small_images_are_enlarged_and_gradients_come_back():
    model, inner = built("wrn-10-1", 5, (3, 8, 8)), built("wrn-10-1", 5)
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    assert torch.equal(model(x), inner(nn.functional.interpolate(x, size=32, mode="bilinear", align_corners=False)))
    model(x).sum().backward()
    assert x.grad.abs().min() > 0
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert "size=(32, 32)" in repr(model)


def test_small_cnn_has_the_bits_it_had():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 8, 3, bias=False), nn.Conv2d(8, 32, 3, bias=False), nn.Conv2d(32, 32, 3, bias=False)]
    expected = [*convolutions, nn.Linear(128, 10)]
    found = [m for m in built("small-cnn", 10, (1, 8, 8)) if hasattr(m, "weight") and not isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(found, expected, strict=True))
    assert built("small-cnn", 4, (3, 16, 16))(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


LIBRARIES = [("torchvision/resnet18", (1, 8, 8)), ("torchvision/vit_b_16", (3, 32, 32)),
             ("torchvision/inception_v3", (3, 75, 75)), ("timm/resnet18.a1_in1k", (1, 8, 8)),
             ("timm/vit_tiny_patch16_224", (3, 32, 32)), ("timm/mobilenetv3_small_050", (3, 64, 64))]  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), LIBRARIES)
def test_classifiers_of_the_libraries(name, shape):
    model = built(name, 6, shape).train()
    assert model(torch.rand(4, *shape)).shape == (4, 6)


BAD_MODELS = {
    "resnet18": ({}, "did you mean 'resnet-18'"),
    "WRN-34-10": ({}, "did you mean 'wrn-34-10'"),
    "preact-resnet18": ({}, "did you mean 'preact-resnet-18'"),
    "torchvision/resnet19": ({}, "nearest: torchvision/resnet1"),
    "torchvision/fasterrcnn_resnet50_fpn": ({}, "torchvision has no classifier"),
    "timm/resnet19": ({}, "nearest: timm/resnet"),
    "timm/hf-hub:timm/resnet18": ({}, "timm has no classifier"),
    "zzz": ({}, "name: expected one of"),
    "wrn-33-10": ({}, "expected a depth of 6n [+] 4, n >= 1 .* got 33"),
    "wrn-4-10": ({}, "got 4"),
    "wrn-10-0": ({}, "name: width: expected a whole number >= 1, got 0"),
    "torchvision/inception_v3": ({"input_shape": (3, 10, 10)}, r"input_shape: .*_v3 cannot take inputs of shape \(3, 10, 10\)"),
    "timm/vit_tiny_patch16_224": ({"input_shape": (3, 10, 10)}, r"input_shape: .*_224 cannot take inputs of shape"),
    "small-cnn": ({"input_shape": (1, 8, 12)}, "input_shape: small-cnn expects squares of a multiple of 4"),
    "wrn-10-1": ({"input_shape": (3, 32)}, r"input_shape: expected \(channels, height, width\) for 'wrn-10-1'"),
    "resnet-18": ({"sub_block1": True}, r"sub_block1: expected False, only wrn-<depth>-<width>.*'resnet-18'"),
    "resnet-18-guide": ({"nb_classes": 1}, "nb_classes: expected a whole number >= 2, got 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models_are_refused(name):
    changes, message = BAD_MODELS[name]
    with pytest.raises(ValueError, match=message):
        create_model(name, **{"nb_classes": 10, **changes})


def test_libraries_are_imported_when_needed_and_initial_weights_do_not_depend_on_it():
    code = (
        "import sys, torch; from art_lbgat.models import create_model\n"
        "assert not {'robustbench', 'timm'} & set(sys.modules)\n"
        "torch.manual_seed(3); print(create_model('wrn-10-1', 10).fc.weight.sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"resnet-18-guide", "small-cnn", "wrn-<depth>-<width>", "timm/<name>"} <= set(list_models())
    assert float(done.stdout) == built("wrn-10-1", 10, seed=3).fc.weight.sum().item()


@pytest.mark.parametrize("model", ["small-cnn", conv_net(classes=4)], ids=["name", "module"])
def test_classifier_trains_one_step(model):
    torch.manual_seed(0)
    classifier = create_classifier(model, 4, (1, 8, 8), device_type="cpu")
    assert type(classifier) is PyTorchClassifier
    x, y = make_data()
    before = copied_state(classifier.model)
    expected = {"lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4, "nesterov": False}
    (group,) = classifier.optimizer.param_groups
    assert {key: group[key] for key in expected} == expected
    assert {id(p) for p in group["params"]} == {id(p) for p in classifier.model.parameters()}
    classifier.fit(x, y, batch_size=len(x), nb_epochs=1)
    assert all(not torch.equal(before[name], value) for name, value in classifier.model.named_parameters())
    assert classifier.predict(x).shape == (24, 4)
    assert np.array_equal(classifier.clip_values, (0.0, 1.0))


def test_classifier_drives_parameters_that_moving_replaced():
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        classifier = create_classifier(conv_net(), 4, (1, 8, 8), device_type="cpu")
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    driven = {id(p) for p in classifier.optimizer.param_groups[0]["params"]}
    assert driven == {id(p) for p in classifier.model.parameters()}


def test_classifier_options_reach_the_optimizer_and_weights_the_module():
    source, model = conv_net(), conv_net()
    options = {"momentum": 0.5, "weight_decay": 0.0, "nesterov": True}
    classifier = create_classifier(model, 4, (1, 8, 8), learning_rate=0.01, weights=source.state_dict(), **options)
    (group,) = classifier.optimizer.param_groups
    assert {key: group[key] for key in ("lr", *options)} == {"lr": 0.01, **options}
    assert classifier.model is model
    assert states_equal(model.state_dict(), source.state_dict())
    assert create_classifier(mlp(), 4, (12,)).input_shape == (12,)
    assert create_classifier(nn.Flatten(), 64, (1, 8, 8)).optimizer is None


class Restless(nn.Module):
    """Counts its calls in a buffer that it replaces, another that it changes, and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.calls = self.calls + 1
        self.mean += x.mean(0) + 1
        return self.linear(x + torch.rand_like(x) + np.random.random())


def test_trying_a_module_leaves_no_trace():
    model = Restless().train()
    model.linear.eval()
    before, modes = copied_state(model), [m.training for m in model.modules()]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    create_classifier(model, 3, (4,), device_type="cpu")
    assert states_equal(model.state_dict(), before)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert all(p.requires_grad for p in model.parameters())


class Pair(nn.Module):
    def forward(self, x):
        return x, x


WIDE = import_architecture("wide_resnet").WideResNet(depth=10, widen_factor=1)
BAD_CLASSIFIERS = {
    "classes": (conv_net(), 10, (1, 8, 8), {}, r"model: expected logits of shape \(N, 10\) for nb_classes=10, got \(2, 4\)"),
    "shape": (conv_net(), 4, (3, 8, 8), {}, r"input_shape: model cannot take inputs of shape \(3, 8, 8\)"),
    "two outputs": (Pair(), 4, (4,), {}, "model: expected one tensor of logits, got tuple"),
    "a pooling too small": (WIDE, 10, (3, 64, 64), {}, r"got \(8, 10\) for N=2"),
    "no model": ([], 4, (4,), {}, "model: expected a name or a torch.nn.Module, got list"),
    "name": ("zzz", 4, (3, 8, 8), {}, "model: expected one of"),
    "sub_block1": (conv_net(), 4, (1, 8, 8), {"sub_block1": True}, "sub_block1: expected False for a module"),
    "learning rate": ("small-cnn", 10, (1, 8, 8), {"learning_rate": 0}, "learning_rate: expected a finite number > 0, got 0"),
    "nesterov": ("small-cnn", 10, (1, 8, 8), {"momentum": 0, "nesterov": True}, "nesterov: expected False with momentum=0"),
    "device": ("small-cnn", 10, (1, 8, 8), {"device_type": "tpu"}, r"device_type: expected one of .*, got 'tpu'"),
    "no GPU": ("small-cnn", 10, (1, 8, 8), {"device_type": "gpu"}, "device_type: expected 'cpu' or None, since CUDA is not available"),
    "range": ("small-cnn", 10, (1, 8, 8), {"clip_values": (1, 0)}, r"clip_values: expected finite \(min, max\) with min < max"),
    "no pair": ("small-cnn", 10, (1, 8, 8), {"clip_values": 1}, r"clip_values: expected a pair \(min, max\) or None, got 1"),
    "range of another shape": ("small-cnn", 10, (1, 8, 8), {"clip_values": (np.zeros(5), np.ones(5))}, "clip_values: .* for inputs of shape"),
    "text for a shape": ("small-cnn", 10, "188", {}, "input_shape: expected a tuple of whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CLASSIFIERS)
def test_bad_classifiers_are_refused(case):
    *arguments, options, message = BAD_CLASSIFIERS[case]
    with pytest.raises((TypeError, ValueError), match=message):
        create_classifier(*arguments, **options)
