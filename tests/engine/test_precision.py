"""Precision, memory format and compilation: off by default, close to the exact run when on, and nothing left behind."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from art_lbgat import LBGATTrainer, RunOptions
from art_lbgat.engine.precision import Execution, executions, gradient_scaler
from tests.conftest import conv_net, copied_state, make_classifier, make_data, optimizer_step

CPU = torch.device("cpu")
X, Y = make_data(36)


def trained(data=(X, Y), nb_epochs=3, validation_data=None, **options):
    classifier, guide = make_classifier(lr=0.02), make_classifier(seed=1, lr=0.02)
    options = {"regularizer": "trades", "regularizer_weight": 2.0, "seed": 0, "verbose": False, **options}
    trainer = LBGATTrainer(classifier, guide, **options)
    trainer.fit(*data, validation_data, batch_size=12, nb_epochs=nb_epochs)
    return trainer


@pytest.fixture(scope="module")
def exact():
    return trained()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"channels_last": True}, 1e-3), ({"precision": "bf16"}, 0.05),
     ({"precision": "bf16", "attack_precision": "fp32", "channels_last": True}, 0.05),
     ({"precision": "bf16", "awp_gamma": 5e-3, "awp_start_epoch": 1}, 0.1), ({"attack_precision": "bf16"}, 0.05)],
)  # fmt: skip
def test_other_roundings_learn_the_same(options, tolerance, exact):
    """A cast weight that is kept over an update would leave the loss where it was."""
    found = trained(**options)
    reference = exact if "awp_gamma" not in options else trained(awp_gamma=5e-3, awp_start_epoch=1)
    for name in ("loss", "guide_ce"):
        first, second = reference.history[name].to_numpy(), found.history[name].to_numpy()
        assert np.abs(first - second).max() < tolerance * (first[0] - first[-1])
    state = copied_state(found.get_classifier().model)
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
    assert all(value.is_contiguous() for value in state.values())
    assert any(not torch.equal(value, exact.get_classifier().model.state_dict()[name]) for name, value in state.items())


def test_compiled_graphs_are_not_made_again_for_partial_batches_modes_or_another_epoch():
    torch._dynamo.reset()
    counters.clear()
    data = np.concatenate([X, X[:5]]), np.concatenate([Y, Y[:5]])  # the last batch has 5
    trainer = trained(data, 1, (X, Y), compile=True)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 3  # natural logits, attack, training; the guide has the student's layers and shares its graph
    trainer.fit(*data, validation_data=(X, Y), batch_size=12, nb_epochs=2)
    assert counters["stats"]["unique_graphs"] == graphs
    assert list(trainer.get_classifier().model.state_dict()) == list(conv_net().state_dict())
    plain = trained(data, 1)
    assert trainer.history.loss[0] == pytest.approx(plain.history.loss[0], rel=1e-3)


def test_a_model_that_cannot_be_compiled_runs_as_it_is_with_one_warning(exact, caplog, monkeypatch):
    def broken(inputs):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: broken)
    with caplog.at_level(logging.WARNING, logger="art_lbgat.engine.precision"):
        found = trained(compile=True)
    assert found.history.loss.tolist() == exact.history.loss.tolist()
    message = "compile=True: {} cannot be compiled (RuntimeError: no compiler); it runs as it is."
    assert caplog.messages == [message.format(name) for name in ("classifier", "guide")]


@pytest.mark.parametrize("error", [KeyError("mine"), torch.OutOfMemoryError("full")])
def test_an_error_of_the_model_itself_is_not_hidden(error, monkeypatch):
    class Failing(nn.Module):
        def forward(self, x):
            raise error

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    run = Execution(Failing(), RunOptions(compile=True), CPU, "classifier")
    with pytest.raises(type(error)):
        run.train(torch.zeros(2, 3))


def test_defaults_call_the_module_itself_on_a_copy():
    calls = []

    class Spy(nn.Module):
        def forward(self, x):
            calls.append((x, torch.is_autocast_enabled("cpu")))
            return x

    x = torch.rand(2, 3, 4, 4)
    run = Execution(Spy(), RunOptions(), CPU, "classifier")
    outputs = run.train(x), run.attack(x)
    assert [output is given for output, (given, _) in zip(outputs, calls, strict=True)] == [True, True]
    assert [(torch.equal(given, x), given.data_ptr() == x.data_ptr(), autocast) for given, autocast in calls] == [
        (True, False, False)
    ] * 2


def test_weights_are_channels_last_inside_and_as_found_afterwards():
    others = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last), nn.Conv2d(4, 4, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *others)
    before, pointers = copied_state(model), list(model.parameters())
    with pytest.raises(KeyboardInterrupt), executions([("m", model)], RunOptions(channels_last=True), CPU):  # noqa: PT012
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
        raise KeyboardInterrupt
    assert model[0].weight.is_contiguous()
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(a is b for a, b in zip(pointers, model.parameters(), strict=True))


def test_fp16_is_refused_on_cpu_and_beside_awp():
    for options in ({"precision": "fp16"}, {"attack_precision": "fp16"}):
        with pytest.raises(ValueError, match="precision: 'fp16' needs a CUDA device, the classifier is on cpu"):
            trained(**options)
    with pytest.raises(ValueError, match="awp_gamma: expected None with precision='fp16'"):
        RunOptions(precision="fp16", awp_gamma=0.1)
    assert gradient_scaler(RunOptions(precision="bf16"), CPU) is None


def test_the_attack_of_fp16_scales_gradients_and_no_value():
    model = nn.Linear(3, 2)
    run = Execution(model, RunOptions(precision="fp16"), CPU, "classifier")
    x = torch.rand(4, 3, requires_grad=True)
    plain, scaled = run.train(x), run.attack(x)
    assert plain.dtype == scaled.dtype == torch.float32
    assert torch.equal(plain, scaled)
    (one,), (many,) = (torch.autograd.grad(out.sum(), x, retain_graph=True) for out in (plain, scaled))
    assert torch.allclose(many, 1024 * one, rtol=1e-3)


def test_one_overflow_stops_every_optimizer_and_lowers_the_scale():
    models = [nn.Linear(2, 1, bias=False) for _ in range(2)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    x = torch.ones(1, 2)
    before = [copied_state(m) for m in models]
    loss = models[0](x).sum() + models[1](x).sum() * 3e38  # times the scale this is infinite in the second model
    optimizer_step(loss, models, optimizers, None, scaler)
    assert all(torch.equal(m.weight, b["weight"]) for m, b in zip(models, before, strict=True))
    assert scaler.get_scale() == 2.0**9
    optimizer_step(models[0](x).sum() + models[1](x).sum(), models, optimizers, None, scaler)
    for model, old in zip(models, before, strict=True):
        assert torch.allclose(model.weight, old["weight"] - 0.1)
    optimizer_step(models[0](x).sum() * 100, models[:1], optimizers[:1], 1.0, scaler)
    moved = models[0].weight.detach() - (before[0]["weight"] - 0.1)
    assert moved.norm() == pytest.approx(0.1, rel=1e-3)  # the norm after unscaling is clipped


def test_tf32_is_off_on_cuda_and_as_found_afterwards():
    def switches():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    found = switches()
    for device, inside in ((torch.device("cuda"), (False, False)), (CPU, found)):
        with executions([("m", nn.Linear(2, 2))], RunOptions(), device):
            assert switches() == inside
        assert switches() == found
