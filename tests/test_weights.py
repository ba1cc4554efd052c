"""Weights: released layouts load strictly and give equal logits; anything else is refused and changes nothing."""

import argparse
import ast
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import art_lbgat.weights
from art_lbgat.models import create_model
from art_lbgat.robustbench_import import import_architecture
from art_lbgat.weights import load_weights, save_weights
from tests.conftest import conv_net, copied_state, states_equal

PACKAGE = Path(art_lbgat.weights.__file__).parent


def toy(seed=0, **kwargs):
    torch.manual_seed(seed)
    model = create_model("wrn-10-1", 10, **kwargs)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def released():
    """RobustBench's own network of the released layout, and what it says about some images."""
    torch.manual_seed(5)
    net = import_architecture("wide_resnet").WideResNet(depth=10, widen_factor=1, sub_block1=True)
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    x = torch.rand(3, 3, 32, 32)
    return copied_state(net), x, net.eval()(x).detach()


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("container", [None, "state_dict", "model", "model_state_dict"])
def test_released_layout_gives_equal_logits(released, tmp_path, prefix, container):
    state, x, logits = released
    saved = {prefix + name: value for name, value in state.items()}
    saved = saved if container is None else {"epoch": 91, container: saved}
    torch.save(saved, tmp_path / "opt-cifar10.pt")
    for weights in (tmp_path / "opt-cifar10.pt", str(tmp_path / "opt-cifar10.pt"), saved):
        model = create_model("wrn-10-1", 10, sub_block1=True, weights=weights).eval()
        assert states_equal(model.state_dict(), state)
        assert torch.equal(model(x), logits)


@pytest.mark.parametrize(("classes", "dead"), [(10, "4.36%"), (100, "4.35%")])
def test_released_layout_of_full_size(classes, dead):
    published = import_architecture("wide_resnet").WideResNet
    with torch.device("meta"):
        model = create_model("wrn-34-10", classes, sub_block1=True)
        published = published(depth=34, widen_factor=10, sub_block1=True, num_classes=classes)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, classes)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in published.state_dict().items()}
    count = {name: value.numel() for name, value in model.named_parameters()}
    unused = sum(n for name, n in count.items() if name.startswith("sub_block1."))
    assert f"{unused / sum(count.values()):.2%}" == dead
    assert len([name for name in shapes if name.startswith("sub_block1.")]) == 61


def test_unused_block_is_never_called():
    model = toy(sub_block1=True)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without
    assert without == {name for name, _ in model.named_parameters() if name.startswith("sub_block1.")}


def refused(model, weights):
    before = copied_state(model)
    with pytest.raises(ValueError, match=r"nothing was loaded") as error:
        load_weights(model, weights)
    assert states_equal(model.state_dict(), before)
    return str(error.value)


def test_missing_block_is_named(released):
    message = refused(toy(), released[0])
    assert "12 unexpected: sub_block1.layer.0.bn1.weight" in message
    assert message.endswith("build the model with sub_block1=True.")
    message = refused(toy(sub_block1=True), toy().state_dict())
    assert "12 missing: sub_block1.layer.0.bn1.weight" in message
    assert message.endswith("build the model with sub_block1=False.")


def test_wrong_width_depth_and_architecture_are_named(released):
    state = released[0]
    wide = refused(create_model("wrn-10-2", 10, sub_block1=True), state)
    assert "of another shape: block1.layer.0.conv1.weight (file (16, 16, 3, 3), model (32, 16, 3, 3)), " in wide
    assert ", ...;" in wide
    assert "missing: block1.layer.1." in refused(create_model("wrn-16-1", 10, sub_block1=True), state)
    resnet = refused(create_model("resnet-18", 10), state)
    assert "missing: " in resnet
    assert "unexpected: " in resnet
    assert "fc.weight (file (10, 64), model (100, 64))" in refused(
        create_model("wrn-10-1", 100, sub_block1=True), state
    )


def test_one_wrong_tensor_changes_none_of_the_others():
    model, state = toy(), toy(1).state_dict()
    message = refused(model, {**state, "fc.bias": torch.zeros(9)})
    assert "1 of another shape: fc.bias (file (9,), model (10,))" in message
    del state["fc.bias"]
    assert "1 missing: fc.bias;" in refused(model, state)


def test_prefix_that_the_model_has_itself_is_kept():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    source, model = Holder(), Holder()
    load_weights(model, source.state_dict())
    assert states_equal(model.state_dict(), source.state_dict())
    load_weights(model, {f"module.{name}": value + 1 for name, value in source.state_dict().items()})
    assert torch.equal(model.module.bias, source.module.bias + 1)


def test_a_name_twice_is_refused():
    state = nn.Linear(2, 2).state_dict()
    with pytest.raises(ValueError, match="holds 'bias' twice"):
        load_weights(nn.Linear(2, 2), {**state, "module.bias": state["bias"]})


def test_round_trip_through_safetensors(tmp_path):
    model = toy().to(memory_format=torch.channels_last)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    save_weights(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert states_equal(load_file(path), model.state_dict())
    other = toy(1)
    load_weights(other, path)
    assert states_equal(other.state_dict(), model.state_dict())
    path.rename(tmp_path / "model.pt")  # told by its content
    load_weights(toy(2), tmp_path / "model.pt")


def test_tied_weights_are_saved_under_both_names(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    save_weights(model, tmp_path / "tied.safetensors")
    load_weights(model, tmp_path / "tied.safetensors")
    assert set(load_file(tmp_path / "tied.safetensors")) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_weights(conv_net(), path)
    before = path.read_bytes()

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        save_weights(conv_net(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no directory .*absent"):
        save_weights(conv_net(), tmp_path / "absent" / "model.safetensors")
    with pytest.raises(ValueError, match="meta device under 'weight'"):
        save_weights(nn.Linear(2, 2, device="meta"), tmp_path / "model.safetensors")


def test_meta_model_is_refused():
    with pytest.raises(ValueError, match="meta device"):
        load_weights(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2).state_dict())


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trap-was-run"),)


def test_files_that_need_objects_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = nn.Linear(2, 2).state_dict()
    for name, value in (("args", argparse.Namespace(lr=0.1)), ("trap", Trap())):
        for zipped in (True, False):
            torch.save({"state_dict": state, name: value}, "objects.pt", _use_new_zipfile_serialization=zipped)
            with pytest.raises(ValueError, match=r"objects\.pt holds objects other than tensors \(") as error:
                load_weights(nn.Linear(2, 2), "objects.pt")
    assert "Path" in str(error.value) or "getattr" in str(error.value)
    assert not Path("trap-was-run").exists()
    torch.save(nn.Linear(2, 2), "module.pt")
    with pytest.raises(ValueError, match=r"\(torch\.nn\.modules\.linear\.Linear\)"):
        load_weights(nn.Linear(2, 2), "module.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_files_are_named(tmp_path, kind, share):
    path, model = tmp_path / "cut.pt", toy()
    if kind == "safetensors":
        save_weights(model, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    before = copied_state(model)
    with pytest.raises(ValueError, match=r"cut\.pt cannot be read, it is truncated or damaged"):
        load_weights(model, path)
    assert states_equal(model.state_dict(), before)


def test_other_files_are_named(tmp_path):
    model = nn.Linear(2, 2)
    page, empty, rows = tmp_path / "page.pt", tmp_path / "empty.safetensors", tmp_path / "rows.pt"
    page.write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(ValueError, match=r"page\.pt.*a web page"):
        load_weights(model, page)
    empty.touch()
    with pytest.raises(ValueError, match=r"empty\.safetensors, which starts with b''"):
        load_weights(model, empty)
    torch.save([torch.zeros(2)], rows)
    with pytest.raises(ValueError, match=r"expected a state dict in .*rows\.pt, got list"):
        load_weights(model, rows)
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.pt"):
        load_weights(model, tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="got the directory"):
        load_weights(model, tmp_path)
    with pytest.raises(TypeError, match="expected a path or a state dict, got int"):
        load_weights(model, 3)
    with pytest.raises(ValueError, match="got OrderedDict under 'net' in the state dict"):
        load_weights(model, {"net": model.state_dict()})


def test_nothing_loads_weights_in_part():
    calls = 0
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"load_state_dict\([^)]*strict\s*=\s*False", text), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("load_state_dict", "load_model"):
                calls += 1
                strict = [k.value for k in node.keywords if k.arg == "strict"] + node.args[1:2]
                assert all(getattr(value, "value", None) is True for value in strict), (path, node.lineno)
    assert calls


def test_reading_with_torch_is_in_one_function_and_for_tensors_only():
    lines = [line for path in PACKAGE.rglob("*.py") for line in path.read_text().splitlines() if "torch.load(" in line]
    assert len(lines) == 1
    assert "weights_only=True" in lines[0]


def test_files_of_weights_can_be_read_by_whom_other_files_can(tmp_path):
    (tmp_path / "other.txt").write_text("")
    save_weights(torch.nn.Linear(2, 2), tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other.txt").stat().st_mode
