"""Every entry of the zoo loads a file of its own layout; what cannot be had or read is named."""

from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from PIL import Image
from torch import nn
from torch.overrides import TorchFunctionMode

from art_lbgat import BGATTrainer, LBGATTrainer
from art_lbgat.classifier import check_classifier
from art_lbgat.evaluation import evaluate
from art_lbgat.robustbench import import_robustbench, list_models, load_classifier, zoo
from art_lbgat.robustbench.zoo import entries, find_entry, load_network, preprocessing
from tests.conftest import copied_state, make_data, states_equal
from tests.robustbench.zoo_nets import put, tiny

CUDA_ONLY = {(f"Bai2023Improving_{name}", data) for name, data in
             (("edm", "cifar10"), ("edm", "cifar100"), ("trades", "cifar100"))}  # fmt: skip
NEED_VALUES = {("Kang2021Stable", "cifar10"), *(("Bai2024MixedNUTS", d) for d in ("cifar10", "cifar100", "imagenet"))}
INITIALISE = {
    getattr(torch.Tensor, f"{name}_") for name in ("normal", "uniform", "erfinv", "clamp", "mul", "add", "fill")
}


class Without(TorchFunctionMode):
    """On the meta device: the values that timm reads while it builds, and no initialisation, which takes long there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        if func in INITIALISE and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)


def shortened(content):
    """The same without its last weight that is no counter."""
    name = [n for n, v in content.items() if v.is_floating_point() and n.rpartition(".")[2] != "sigma"][-1]
    return {n: v for n, v in content.items() if n != name}


pytestmark = pytest.mark.usefixtures("no_network")


def test_every_entry_loads_a_file_of_its_own_layout(check_zoo, tmp_path):
    """Built without values, so that the 206 networks need no memory; that values arrive, ``scripts/check_zoo.py`` shows.

    Each is loaded a second time from a file that lacks one tensor.
    """
    failed, taken = {}, []
    for i, entry in enumerate(entries()):
        key, folder = (entry.name, entry.dataset), tmp_path / str(i)
        with torch.device("meta"), Without():
            try:
                contents = check_zoo.checkpoints(entry, entry.build())
            except RuntimeError as error:
                failed[key] = str(error)
                continue
            for path, content in zip(entry.files(folder), contents, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(content, path)
            net = load_network(entry, folder)
            assert not net.training
            assert all(value.is_meta for value in net.parameters())
            assert type(net).forward is nn.Sequential.forward or not isinstance(net, nn.Sequential)
            first = {"last": shortened(contents[0]["last"])} if "last" in contents[0] else shortened(contents[0])
            torch.save(first, next(iter(entry.files(folder))))
            try:
                load_network(entry, folder)
            except ValueError as error:
                assert str(next(iter(entry.files(folder)))) in str(error)  # noqa: PT017
            else:
                taken.append(key)
    assert failed.keys() == CUDA_ONLY | NEED_VALUES
    assert all("NVIDIA" in failed[key] for key in CUDA_ONLY)
    assert all("meta tensors" in failed[key] for key in NEED_VALUES)
    assert taken == []


PLACE = ("name", "dataset", "threat_model")


@pytest.mark.parametrize(
    PLACE, [("Hendrycks2020AugMix_WRN", "cifar100", "corruptions"), ("Salman2020Do_R18", "imagenet", "Linf")]
)
def test_values_arrive_and_logits_are_those_of_robustbench(name, dataset, threat_model, check_zoo, tmp_path):
    entry = find_entry(name, dataset, threat_model)
    torch.manual_seed(1)
    net = entry.build()
    check_zoo.save(entry, net, tmp_path)
    classifier = load_classifier(name, dataset, threat_model, tmp_path)
    assert states_equal(classifier.model.state_dict(), net.state_dict())
    published = import_robustbench().utils.load_model(name, tmp_path, dataset, threat_model)
    x = np.random.default_rng(0).random((2, *entry.input_shape), dtype=np.float32)
    with torch.no_grad():
        expected = published(torch.from_numpy(x)).numpy()
    assert np.array_equal(classifier.predict(x), expected)
    assert classifier.input_shape == entry.input_shape
    assert classifier.nb_classes == {"cifar100": 100, "imagenet": 1000}.get(dataset, 10)


@pytest.mark.parametrize(
    PLACE, [("Debenedetti2022Light_XCiT-S12", "cifar10", "Linf"), ("Standard_R50", "imagenet", "Linf")]
)
def test_weights_in_the_cache_of_torch_hub_or_in_the_directory(name, dataset, threat_model, check_zoo, tmp_path):
    """As released (without the normalising layer) in the cache, where RobustBench finds them too; and both layouts here."""
    entry = find_entry(name, dataset, threat_model)
    torch.manual_seed(1)
    net = entry.build()
    (content,) = check_zoo.checkpoints(entry, net)
    check_zoo.change(content)
    entry.cached.parent.mkdir(parents=True)
    torch.save(content, entry.cached)
    found = load_classifier(name, dataset, threat_model, tmp_path)
    assert not found.model.training
    published = import_robustbench().utils.load_model(name, tmp_path, dataset, threat_model)
    assert states_equal(found.model.state_dict(), published.state_dict())
    assert states_equal(found.model.state_dict(), net.state_dict())
    entry.cached.unlink()
    put(entry, tmp_path, {"state_dict": content})
    assert states_equal(load_network(entry, tmp_path).state_dict(), net.state_dict())
    put(entry, tmp_path, net.state_dict())
    assert states_equal(load_network(entry, tmp_path).state_dict(), net.state_dict())
    path = put(entry, tmp_path, shortened(content))
    with pytest.raises(ValueError, match=rf"weights: {path} does not fit '{name}'"):
        load_network(entry, tmp_path)


def test_parts_of_an_ensemble(monkeypatch, tmp_path):
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.models = nn.ModuleList(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)) for _ in range(3))

        def forward(self, x):
            return sum(model(x) for model in self.models)

    entry = find_entry("Chen2020Adversarial", "cifar10", "Linf")
    monkeypatch.setitem(entry.published, "model", Ensemble)
    parts = Ensemble().models
    assert not entry.present(tmp_path)
    for i, part in enumerate(parts):
        path = tmp_path / "cifar10" / "Linf" / f"Chen2020Adversarial.pt_m{i}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {f"module.{n}": v for n, v in part.state_dict().items()}}, path)
    assert entry.present(tmp_path)
    assert states_equal(load_network(entry, tmp_path).models.state_dict(), parts.state_dict())


def test_the_classifier_takes_images_and_is_left_alone(monkeypatch, tmp_path):
    entry, net = tiny(monkeypatch)
    put(entry, tmp_path, net.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with torch.device("meta"):
        classifier = load_classifier("Standard", model_dir=str(tmp_path))
    assert torch.equal(torch.rand(3), expected)
    assert classifier.clip_values == pytest.approx((0, 1))
    assert classifier.nb_classes == 10
    assert classifier.input_shape == (3, 32, 32)
    assert not classifier.model.training
    assert not any(p.requires_grad for p in classifier.model.parameters())
    assert classifier.optimizer is None
    check_classifier(classifier, "classifier")
    x, y = make_data(8, (3, 32, 32))
    with torch.no_grad():
        assert np.array_equal(classifier.predict(x), net.eval()(torch.from_numpy(x)).numpy())
    x_adv = FastGradientMethod(classifier, eps=0.03).generate(x, y)
    assert 0.02 < np.abs(x_adv - x).max() <= 0.0301


def test_a_guide_a_start_of_training_and_a_source_of_attacks(monkeypatch, tmp_path):
    entry, net = tiny(monkeypatch)
    put(entry, tmp_path, net.state_dict())
    x, y = make_data(8, (3, 32, 32))
    fixed = load_classifier("Standard", model_dir=tmp_path)
    student = load_classifier("Standard", model_dir=tmp_path, trainable=True, learning_rate=0.01)
    before = copied_state(student.model)
    assert student.optimizer.param_groups[0]["lr"] == 0.01
    assert all(p.requires_grad for p in student.model.parameters())
    BGATTrainer(student, fixed, seed=0, verbose=False).fit(x, y, nb_epochs=1, batch_size=4)
    assert states_equal(fixed.model.state_dict(), before)
    assert not states_equal(student.model.state_dict(), before)
    trained = load_classifier("Standard", model_dir=tmp_path, trainable=True)
    LBGATTrainer(student, trained, seed=0, verbose=False).fit(x, y, nb_epochs=1, batch_size=4)
    assert not states_equal(trained.model.state_dict(), before)
    table = evaluate(student, x, y, eps=0.1, attacks=["natural", "transfer"], sources={"zoo": fixed})
    assert "zoo" in table["attack"].tolist()[1]
    assert states_equal(fixed.model.state_dict(), before)
    with pytest.raises(ValueError, match="learning_rate: expected trainable=True"):
        load_classifier("Standard", model_dir=tmp_path, learning_rate=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rice2020overfiting", "cifar10", "Linf"), "nearest: 'Rice2020Overfitting'"),
        (("AlexNet", "cifar10", "Linf"), "got 'AlexNet'; it is in imagenet corruptions."),
        (("qqqq", "cifar10", "L2"), r"one of the 21 models that list_models\('cifar10', 'L2'\) shows, got 'qqqq'\.$"),
        (("Standard", "cifar10", "linf"), "threat_model: expected one of .*did you mean 'Linf'"),
        (("Standard", "cifar100", "L2"), "no zoo for 'cifar100' with 'L2', expected one of cifar10 Linf, cifar10 L2"),
    ],
)
def test_unknown_entries(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_classifier(*arguments)


def test_networks_that_need_cuda(monkeypatch, tmp_path):
    """Without a GPU: what the call does, not that the network runs."""
    for name, dataset in CUDA_ONLY:  # refused before anything is downloaded
        with pytest.raises(RuntimeError, match=rf"name: '{name}' of RobustBench runs on CUDA alone"):
            load_classifier(name, dataset, "Linf", tmp_path, device_type="cpu")
    assert list(tmp_path.iterdir()) == []
    moved = []

    class Network(nn.Linear):
        def cuda(self):
            moved.append(True)
            return self

    def create(network, *_, **__):
        assert moved == [True]  # before it is tried
        assert not network.weight.requires_grad
        return SimpleNamespace(set_params=lambda optimizer: None)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(zoo, "load_network", lambda *_: Network(1, 1))
    monkeypatch.setattr(zoo, "create_classifier", create)
    load_classifier("Bai2023Improving_edm", model_dir=tmp_path)


def test_the_list(monkeypatch, tmp_path):
    monkeypatch.setattr(nn.Module, "__init__", lambda *_, **__: pytest.fail("a network was built"))
    table = list_models()
    sizes = table.groupby(["dataset", "threat_model"]).size().to_dict()
    assert sizes == {
        ("cifar10", "Linf"): 76, ("cifar10", "L2"): 21, ("cifar10", "corruptions"): 17, ("cifar100", "Linf"): 38,
        ("cifar100", "corruptions"): 12, ("imagenet", "Linf"): 30, ("imagenet", "corruptions"): 12,
    }  # fmt: skip
    assert table["source"].value_counts().to_dict() == {"google drive": 192, "timm": 12, "torchvision": 2}
    assert set(table[~table["cpu"]][["name", "dataset"]].itertuples(index=False, name=None)) == CUDA_ONLY
    assert "on_disk" not in table
    assert table["input_shape"].value_counts().to_dict() == {(3, 32, 32): 164, (3, 224, 224): 41, (3, 288, 288): 1}
    rows = table.set_index(["name", "dataset", "threat_model"])
    assert rows.loc[("Wong2020Fast", "imagenet", "Linf"), "input_shape"] == (3, 288, 288)
    assert rows.loc[("Wong2020Fast", "imagenet", "Linf"), "preprocessing"] == "Crop288"
    assert rows.loc[("AlexNet", "imagenet", "corruptions"), "preprocessing"] == "timm"
    assert rows.loc[("Diffenderfer2021Winning_LRR_CARD_Deck", "cifar10", "corruptions"), "n_files"] == 6
    assert len(list_models("imagenet", "corruptions_3d")) == 12
    put(find_entry("Standard", "cifar10", "L2"), tmp_path, {})
    here = list_models(model_dir=tmp_path)
    assert here[here["on_disk"]][["name", "threat_model"]].to_numpy().tolist() == [["Standard", "L2"]]


def test_the_list_agrees_with_the_published_table():
    rows = pd.read_csv(files("art_lbgat.robustbench") / "leaderboard.csv")
    keys = ["dataset", "threat_model", "name"]
    published = rows[rows["in_model_zoo"]].drop(columns="name").rename(columns={"model_id": "name"}).set_index(keys)
    table = list_models().set_index(keys)
    assert sorted(table.index) == sorted(published.index)
    own = table[table["source"] != "timm"]["preprocessing"].dropna()
    assert own.to_dict() == published.loc[own.index, "zoo_preprocessing"].to_dict()


def test_images_become_what_the_network_takes():
    image = Image.fromarray(np.full((300, 400, 3), 255, np.uint8))
    for name, threat_model in (("Wong2020Fast", "Linf"), ("AlexNet", "corruptions_3d")):
        x = preprocessing(name, "imagenet", threat_model)(image)
        assert tuple(x.shape) == find_entry(name, "imagenet", threat_model).input_shape
        assert torch.equal(x, torch.ones_like(x))
    assert preprocessing("Standard", "cifar10", "Linf")(image).shape == (3, 300, 400)
