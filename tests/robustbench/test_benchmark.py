"""The benchmark: RobustBench's own numbers, what they are called, and images that are not there or not what they seem."""

import functools
import hashlib
import json
import math
import os
import pickle  # noqa: TID251 (CIFAR's own format)
import subprocess
import sys
import urllib.error
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from PIL import Image
from torch import nn
from torchvision import datasets

from art_lbgat import robustbench_import as compat
from art_lbgat.evaluation.record import Record
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.robustbench import adversarial, import_robustbench
from art_lbgat.robustbench.benchmark import _differences, benchmark
from art_lbgat.robustbench.images import BenchmarkImages, load_images
from art_lbgat.robustbench.result import BenchmarkResult

N = 30
FAST = {"attacks": ["apgd-ce", "square"], "verbose": False, "batch_size": 16}


def centres(classes):
    """By how many levels the left half of a class is brighter: some classes lie close together, some apart."""
    return np.array([0, 8, 16, 24, 60, 100, 140, 150, 160, 200]) if classes == 10 else np.arange(classes) * 10


def make_cifar(folder, n=N, classes=10, labels="labels", name="test_batch"):
    """A test file in CIFAR's own format; the left and right half of an image tell its class by their brightness."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = generator.integers(110, 130, (n, 3, 32, 32))
    half = (centres(classes)[y] // 2).reshape(-1, 1, 1, 1)
    x[:, :, :, :16] += half
    x[:, :, :, 16:] -= half
    batch = {"data": x.astype(np.uint8).reshape(n, -1), labels: y.tolist(), "batch_label": "testing batch 1 of 1"}
    (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return x.astype(np.float32) / 255, y


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    x, y = make_cifar(folder / "cifar-10-batches-py")
    return folder, x, y


def make_classifier(model, classes=10, shape=(3, 32, 32), **kwargs):
    kwargs = {"clip_values": (0.0, 1.0), "device_type": "cpu", **kwargs}
    return PyTorchClassifier(model=model, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=classes, **kwargs)


def halves(classes=10, scale=40.0):
    """Logits that compare the difference of the two halves with what each class should have."""
    model = nn.Sequential(nn.AvgPool2d((32, 16)), nn.Flatten(), nn.Linear(6, classes))
    with torch.no_grad():
        centre = torch.from_numpy(centres(classes) / 255)
        model[2].weight.copy_(torch.outer(centre, torch.tensor([1.0, -1, 1, -1, 1, -1]).double() / 3) * scale)
        model[2].bias.copy_(-(centre**2) / 2 * scale)
    return model


@pytest.fixture(scope="module")
def classifier():
    return make_classifier(halves())


@pytest.fixture
def published(cifar, monkeypatch):
    """The tiny file passes for the published one: its checksum stands in torchvision's list."""
    folder, _, _ = cifar
    digest = hashlib.md5((folder / "cifar-10-batches-py" / "test_batch").read_bytes()).hexdigest()  # noqa: S324
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", digest]])
    meta = pickle.dumps({"label_names": [str(c) for c in range(10)]})
    (folder / "cifar-10-batches-py" / "batches.meta").write_bytes(meta)
    entry = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(meta).hexdigest()}  # noqa: S324
    monkeypatch.setattr(datasets.CIFAR10, "meta", entry)
    return folder


@pytest.mark.parametrize(("threat_model", "eps", "n"), [("Linf", 8 / 255, N), ("L2", 0.5, 12)])
def test_numbers_are_those_of_robustbench(threat_model, eps, n, classifier, published):
    package = import_robustbench()
    seeded = functools.partial(compat.AutoAttack, seed=5)
    theirs = compat.with_globals(package.eval.benchmark, AutoAttack=seeded)(
        classifier.model, n, "cifar10", threat_model, data_dir=str(published), batch_size=8, eps=eps
    )
    options = {"data_dir": published, "batch_size": 8, "seed": 5, "verbose": False}
    ours = benchmark(classifier, "cifar10", threat_model, n_examples=n, **options)
    assert (ours.natural.value, ours.robust.value) == pytest.approx(theirs, abs=1e-9)
    assert 0 < ours.robust.value < ours.natural.value == 1
    assert ours.robust.value == ours.attacks["square"] == min(ours.attacks.values())
    assert ours.label == f"not RobustBench standard: {n} images instead of 10,000"
    assert package.eval.AutoAttack is not seeded


def test_a_tiny_set_is_read_labelled_and_judged_to_the_end(classifier, cifar, capsys):
    folder, x, y = cifar
    before, mode = torch.get_rng_state(), classifier.model.training
    result = benchmark(classifier, data_dir=folder, eps=0.02, n_examples=20, attacks="apgd-ce", verbose=False)
    assert torch.equal(before, torch.get_rng_state())
    assert classifier.model.training == mode
    assert result.natural == Accuracy(20, 20)
    assert (result.dataset, result.threat_model, result.eps, result.seed) == ("cifar10", "Linf", 0.02, 0)
    assert not result.standard
    for difference in ("eps 0.02 instead of 8/255", "20 images instead of 10,000", "not the published files",
                       "attacks apgd-ce instead of AutoAttack standard"):  # fmt: skip
        assert difference in result.label
    assert {"art-lbgat", "torch", "robustbench", "pyautoattack"} <= set(result.versions)
    assert sum(result.seconds.values()) > 0
    assert result.weights_sha256 != result.data_sha256
    assert capsys.readouterr().out == ""
    loaded = load_images("cifar10", "Linf", None, folder)
    assert np.array_equal(loaded.x.numpy(), x)
    assert np.array_equal(loaded.y.numpy(), y)


def test_a_result_survives_json_and_has_one_row(classifier, cifar, few_queries, tmp_path):
    result = benchmark(classifier, data_dir=cifar[0], model_name="Mine2026First", architecture="halves", **FAST)
    result.save(tmp_path / "result.json")
    assert BenchmarkResult.load(tmp_path / "result.json") == result
    row = result.to_frame().iloc[0]
    assert (row.model, row.architecture, row.n, row.natural) == ("Mine2026First", "halves", N, 1.0)
    assert row.robust_low < row.robust < row.robust_high
    assert row["square"] == row.robust
    text = str(result)
    assert "Mine2026First, cifar10 Linf, eps 0.031373, n = 30: natural 100.00 %" in text
    assert "\nnot RobustBench standard: " in text
    changed = json.loads(result.to_json()) | {"label": "RobustBench standard"}
    assert BenchmarkResult.from_json(json.dumps(changed)).label == result.label
    for broken in ("[]", "{}", "nonsense", '{"natural": [1, 2]}'):
        with pytest.raises(ValueError, match=r"expected what BenchmarkResult\.to_json wrote"):
            BenchmarkResult.from_json(broken)


def test_the_interval_is_wilsons():
    correct, n, z = 52, 100, 1.959963984540054
    p = correct / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert Accuracy(correct, n).interval == pytest.approx((middle - half, middle + half))
    assert Accuracy(10, 10).interval[1] == 1
    assert str(Accuracy(52, 100)) == "52.00 % [42.32, 61.54]"


def test_preprocessing_and_clip_values_are_inside_the_model_that_is_attacked(classifier, cifar, few_queries):
    expected = benchmark(classifier, data_dir=cifar[0], **FAST)
    scaled = make_classifier(nn.Sequential(halves()), clip_values=(0.0, 255.0), preprocessing=(0.0, 255.0))
    found = benchmark(scaled, data_dir=cifar[0], **FAST)
    assert found.natural == expected.natural
    assert abs(found.robust.correct - expected.robust.correct) <= 1
    assert 0 < found.robust.correct < N
    shifted = make_classifier(halves(), preprocessing=(0.5, 3.0))
    assert benchmark(shifted, data_dir=cifar[0], **FAST).natural.value < 0.5


def test_killed_it_goes_on_and_refuses_another_run(classifier, cifar, few_queries, tmp_path, monkeypatch):
    path = tmp_path / "state"
    whole = benchmark(classifier, data_dir=cifar[0], **FAST)
    add, count = Record.add, Counter()

    def stop(self, part, entry, place=0):
        count[part] += 1
        add(self, part, entry, place)
        if count[part] == 1:
            raise KeyboardInterrupt
        return entry

    with monkeypatch.context() as patch:
        patch.setattr(Record, "add", stop)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                benchmark(classifier, data_dir=cifar[0], state_path=path, **FAST)
    assert benchmark(classifier, data_dir=cifar[0], state_path=path, **FAST) == whole
    for options, changed in (({"eps": 0.02}, "eps"), ({"n_examples": 10}, "data"), ({"batch_size": 5}, "batch_size")):
        with pytest.raises(
            ValueError, match=f"belongs to another run, so going on would mix two .*{changed}: recorded"
        ):
            benchmark(classifier, data_dir=cifar[0], state_path=path, **{**FAST, **options})
    with pytest.raises(ValueError, match="weights: recorded"):
        benchmark(make_classifier(halves(scale=41.0)), data_dir=cifar[0], state_path=path, **FAST)


@pytest.mark.parametrize("key", [("cifar10", "Linf"), ("cifar10", "L2"), ("cifar100", "Linf"), ("imagenet", "Linf")])
def test_standard_is_the_full_set_the_published_eps_and_all_attacks(key):
    from art_lbgat.robustbench.standard import EPS, N_EXAMPLES, NB_CLASSES

    dataset, threat_model = key

    def differences(n=N_EXAMPLES[dataset], eps=EPS[key].value, published=True, attacks="standard", classes=None):
        images = BenchmarkImages(torch.empty(n, 1), torch.zeros(n), published)
        settings = adversarial.Settings(dataset, threat_model, eps, attacks, 10, 0, None, None, None, False)
        return _differences(settings, images, classes or NB_CLASSES[dataset])

    assert differences() == ()
    assert differences(n=1000) == (f"1,000 images instead of {N_EXAMPLES[dataset]:,}",)
    assert differences(eps=0.031)[0].startswith("eps 0.031 instead of ")
    assert differences(published=False) == ("images that are not the published files",)
    assert differences(attacks=("apgd-ce",)) == ("attacks apgd-ce instead of AutoAttack standard",)
    assert differences(classes=4)[0].startswith("4 classes")


def test_a_randomised_model_is_flagged_and_never_gets_the_higher_number(cifar, few_queries):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = halves()

        def forward(self, x):
            return self.model(x) + 0.02 * torch.randn(len(x), 10)

    result = benchmark(make_classifier(Noisy()), data_dir=cifar[0], **FAST)
    assert "randomised" in result.flags
    assert "flags: randomised" in str(result)
    assert result.robust.value <= result.attacks["square"]


class Changed(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.model, self.function = halves(), function

    def forward(self, x):
        return self.function(self.model(x))


MASKED = {
    "saturated": (lambda z: 1e5 * z, "zero gradients"),
    "rounded": (lambda z: z.round() + 0 * z, None),
    "batch": (lambda z: z - z.mean(dim=0), "batch dependent"),
    "softmax": (lambda z: z.softmax(dim=1), "softmax"),
}


@pytest.mark.parametrize(("function", "flag"), MASKED.values(), ids=MASKED)
def test_masked_gradients_are_flagged_whatever_the_attacks(function, flag, cifar):
    options = {"data_dir": cifar[0], "verbose": False, "batch_size": 16, "attacks": "apgd-ce"}
    result = benchmark(make_classifier(Changed(function)), **options)
    assert (flag in result.flags) if flag else result.flags
    assert "flagged softmax" in result.label if flag == "softmax" else "flagged softmax" not in result.label
    assert not benchmark(make_classifier(halves()), **options).flags


def test_a_model_without_a_graph_is_refused_where_gradients_are_needed(cifar, few_queries):
    classifier = make_classifier(Changed(lambda z: z.detach()))
    options = {"data_dir": cifar[0], "verbose": False}
    with pytest.raises(ValueError, match="classifier: its logits have no graph to its inputs"):
        benchmark(classifier, **options)
    assert benchmark(classifier, attacks=["square"], **options).natural.value == 1


def test_postprocessing_is_inside_the_model_that_is_judged(cifar, few_queries):
    from art.defences.postprocessor import ReverseSigmoid, Rounded

    rounded = make_classifier(halves(), postprocessing_defences=Rounded(decimals=1))
    result = benchmark(rounded, data_dir=cifar[0], **FAST)
    assert result.natural.correct == (rounded.predict(cifar[1]).argmax(axis=1) == cifar[2]).sum() < N
    assert not benchmark(make_classifier(halves()), data_dir=cifar[0], **FAST).natural.correct < N
    reverse = make_classifier(
        Changed(lambda z: z.softmax(dim=1)), postprocessing_defences=ReverseSigmoid(beta=1.0, gamma=0.1)
    )
    predicted = reverse.predict(cifar[1]).argmax(axis=1)
    assert benchmark(reverse, data_dir=cifar[0], **FAST).natural.correct == (predicted == cifar[2]).sum()


def test_double_precision_logits_are_taken(cifar, few_queries):
    double = make_classifier(Changed(lambda z: z.double()))
    options = {"data_dir": cifar[0], "verbose": False, "attacks": ["apgd-ce", "fab-t"], "n_examples": 10}
    plain = benchmark(make_classifier(halves()), **options)
    assert benchmark(double, **options).robust == plain.robust


def test_a_model_that_answers_otherwise_does_not_go_on(cifar, few_queries, tmp_path):
    class Warm(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.temperature = halves(), 1.0

        def forward(self, x):
            return self.model(x) / self.temperature

    module = Warm()
    options = {"data_dir": cifar[0], "state_path": tmp_path / "state", **FAST}
    first = benchmark(make_classifier(module), **options)
    assert benchmark(make_classifier(module), **options) == first
    module.temperature = 4.0
    with pytest.raises(ValueError, match="the model gives other logits for the same images than it recorded"):
        benchmark(make_classifier(module), **options)


def test_answers_that_differ_on_a_second_look_are_flagged(cifar, monkeypatch):
    """Deterministic in the checks of the first batch, but not when the adversarial images are judged again."""

    class Tired(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = halves()

        def forward(self, x):
            logits = self.model(x)
            return logits if x.requires_grad or len(x) != 7 else logits.roll(1, dims=1)

    made = adversarial.attack_images
    monkeypatch.setattr(adversarial, "attack_images", lambda *a, **k: made(*a[:7], 30, *a[8:], **k))
    options = {"attacks": "apgd-ce", "verbose": False, "batch_size": 7, "n_examples": 28}
    result = benchmark(make_classifier(Tired()), data_dir=cifar[0], **options)
    assert "judged again" in result.flags["randomised"]
    assert result.robust.correct == 0


def test_fewer_classes_are_flagged_and_labelled(tmp_path, few_queries):
    make_cifar(tmp_path / "cifar-10-batches-py", n=12, classes=4)
    result = benchmark(
        make_classifier(halves(4), classes=4), data_dir=tmp_path, attacks="standard", eps=0.01, verbose=False
    )
    assert "few classes" in result.flags
    assert "4 classes instead of 10" in result.label
    assert result.natural.value == 1


def test_cifar100_by_its_fine_labels(tmp_path, few_queries):
    make_cifar(tmp_path / "cifar-100-python", n=20, classes=20, labels="fine_labels", name="test")
    result = benchmark(make_classifier(halves(100), classes=100), "cifar100", data_dir=tmp_path, **FAST)
    assert result.natural.value > 0.9
    assert not result.flags
    with pytest.raises(ValueError, match="eps: there is no leaderboard for cifar100 L2, expected a radius, got None"):
        benchmark(make_classifier(halves(100), classes=100), "cifar100", "L2", data_dir=tmp_path)


BAD = {
    "dataset": ({"dataset": "cifar-10"}, "dataset: expected one of .* did you mean 'cifar10'"),
    "threat model": ({"threat_model": "linf"}, "threat_model: expected one of .* did you mean 'Linf'"),
    "eps": ({"eps": 0}, "eps: expected a finite number > 0"),
    "eps of corruptions": ({"threat_model": "corruptions", "eps": 0.1}, "eps: expected None for corruptions"),
    "n_examples": ({"n_examples": 0}, "n_examples: expected a whole number >= 1"),
    "too many": ({"n_examples": N + 1}, f"n_examples: expected at most {N}, as many as there are, got {N + 1}"),
    "eps of bytes": ({"eps": 8}, r"eps: expected at most 1, in units of images in \[0, 1\]"),
    "no attacks": ({"attacks": []}, "attacks: expected 'standard' or"),
    "attacks of another type": ({"attacks": 3}, "attacks: expected 'standard' or"),
    "batch_size": ({"batch_size": 0}, "batch_size: expected"),
    "attacks": ({"attacks": ["pgd"]}, "attacks: expected one of"),
    "attacks of corruptions": ({"threat_model": "corruptions", "attacks": "square"}, "attacks: expected 'standard'"),
    "no such corruptions": ({"threat_model": "corruptions_3d"}, "RobustBench has no corruptions_3d for cifar10"),
    "preprocessing": ({"preprocessing": "Res224"}, "preprocessing: expected None, only ImageNet"),
    "input shape": (
        {"classifier": make_classifier(nn.Flatten(), shape=(3, 8, 8))},
        r"classifier: expected input_shape \(3, 32, 32\), the images of cifar10, got \(3, 8, 8\)",
    ),
    "classes": (
        {"classifier": make_classifier(halves(4), classes=4)},
        "classifier: expected nb_classes 10 for cifar10, got 4, and there are labels up to 9",
    ),
    "no range": ({"classifier": make_classifier(halves(), clip_values=None)}, "needs bounded inputs"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "match"), BAD.values(), ids=BAD)
def test_bad_arguments(change, match, classifier, cifar):
    arguments = {"classifier": classifier, "data_dir": cifar[0], "verbose": False, **change}
    with pytest.raises(ValueError, match=match):
        benchmark(**arguments)


def offline(*_, **__):
    raise urllib.error.URLError("no route to host")


def test_images_that_are_not_there_are_one_error(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", offline)  # noqa: TID251 (replaced, so that nothing is fetched)
    with pytest.raises(
        FileNotFoundError, match=r"data_dir: no CIFAR-10 in .*URLError.*Put torchvision's folder cifar-10"
    ):
        benchmark(classifier, data_dir=tmp_path, verbose=False)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch malicious",)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "text": lambda path: path.write_text("<html>quota</html>"),
    "code": lambda path: path.write_bytes(pickle.dumps(Malicious())),
    "other keys": lambda path: path.write_bytes(pickle.dumps({"images": 1})),
    "labels missing": lambda path: path.write_bytes(
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_malicious_file_is_named_and_runs_nothing(damage, classifier, tmp_path, monkeypatch):
    make_cifar(tmp_path / "cifar-10-batches-py")
    damage(tmp_path / "cifar-10-batches-py" / "test_batch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data_dir: .*test_batch is damaged or no file of CIFAR"):
        benchmark(classifier, data_dir=tmp_path, verbose=False)
    assert not (tmp_path / "malicious").exists()


@pytest.fixture
def imagenet(tmp_path):
    """The first four images of RobustBench's list, which are all that is read of it, and a folder for each class."""
    package = import_robustbench()
    listed = package.loaders.pkg_resources.resource_filename(
        "robustbench.loaders", "helper_files/imagenet_test_image_ids.txt"
    )
    names = Path(listed).read_text().split()
    for name in names:
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
    for missing in range(3):  # the list has images of 997 classes, and there is a folder for each of 1000
        (tmp_path / "val" / f"n9999999{missing}").mkdir()
    for number, name in enumerate(names[:4]):
        Image.new("RGB", (64 + number, 48), (60 * number, 0, 0)).save(tmp_path / "val" / name)
    return tmp_path, names


def test_imagenet_by_robustbench_loader(imagenet):
    folder, names = imagenet
    model = nn.Sequential(nn.AvgPool2d(224), nn.Flatten(), nn.Linear(3, 1000))
    classifier = make_classifier(model, 1000, (3, 224, 224))
    options = {"eps": 0.001, "n_examples": 4, "data_dir": folder, "attacks": ["apgd-ce"], "verbose": False}
    result = benchmark(classifier, "imagenet", preprocessing="Res256Crop224", **options)
    assert result.natural.n == 4
    assert "4 images instead of 5,000" in result.label
    images = load_images("imagenet", "Linf", 4, folder, None, "Salman2020Do_R18")
    classes = sorted(path.name for path in (folder / "val").iterdir())
    assert images.y.tolist() == [classes.index(name.split("/")[0]) for name in names[:4]]
    assert images.x.shape == (4, 3, 224, 224)
    assert images.x[:, 0].mean(dim=(1, 2)).tolist() == pytest.approx([60 * k / 255 for k in range(4)], abs=0.01)
    with pytest.raises(ValueError, match=r"preprocessing: expected one of \['Res256Crop224', .* got None"):
        benchmark(classifier, "imagenet", **options)
    with pytest.raises(ValueError, match=r"preprocessing: expected one of .*did you mean"):
        benchmark(classifier, "imagenet", preprocessing="Res256", **options)
    with pytest.raises(FileNotFoundError, match=r"(?s)no ImageNet in .*Put all validation images"):
        load_images("imagenet", "Linf", 5, folder, "Res224")
    (folder / "val" / "n99999992").rmdir()
    with pytest.raises(FileNotFoundError, match=r"expected the 1000 class folders of ImageNet in .*, got 999"):
        load_images("imagenet", "Linf", 4, folder, "Res224")
    with pytest.raises(ValueError, match="n_examples: expected at most 5000"):
        load_images("imagenet", "Linf", 5001, folder, "Res224")
    with pytest.raises(FileNotFoundError, match=r"data_dir: no ImageNet in .*Put the validation images into"):
        load_images("imagenet", "Linf", 4, folder / "val", "Res224")


@pytest.fixture
def corrupted(cifar, tmp_path, monkeypatch):
    """Two kinds of corruption; files of the published length, which the loader counts on, but with holes."""
    _, x, y = cifar
    package = import_robustbench()
    enums = package.model_zoo.enums
    make_cifar(tmp_path / "cifar-10-batches-py")
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    labels = np.zeros(50_000, dtype=np.uint8)
    images = (x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    kinds = ("fog", "frost")
    for kind in kinds:
        array = np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.uint8, (50_000, 32, 32, 3))
        for severity in range(5):
            first = severity * 10_000
            wrong = severity * 2 + (kind == "frost")  # so many images show the next class instead
            array[first : first + N] = images
            array[first : first + wrong] = images[1 : 1 + wrong]
            labels[first : first + N] = y
        array.flush()
    np.save(folder / "labels.npy", labels)
    monkeypatch.setitem(package.data.CORRUPTIONS_DICT[enums.BenchmarkDataset("cifar10")],
                        enums.ThreatModel("corruptions"), kinds)  # fmt: skip
    return tmp_path


def test_corruptions_are_the_mean_over_kinds_and_severities(classifier, corrupted, monkeypatch):
    monkeypatch.chdir(corrupted)
    path = corrupted / "state"
    options = {"data_dir": corrupted, "state_path": path, "verbose": False}
    result = benchmark(classifier, "cifar10", "corruptions", **options)
    expected = {kind: [(N - 2 * s - extra) / N for s in range(5)] for kind, extra in (("fog", 0), ("frost", 1))}
    assert {kind: list(each) for kind, each in result.corruptions.items()} == expected
    assert result.robust.value == pytest.approx(np.mean(list(expected.values())))
    assert result.robust.n == 2 * 5 * N
    assert (result.natural.value, result.eps) == (1.0, None)
    assert "30 images instead of 10,000" in result.label
    assert not (corrupted / "model_info").exists()
    before = path.stat().st_mtime_ns
    assert benchmark(classifier, "cifar10", "corruptions", **options) == result
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="n: recorded 30, now 10"):
        benchmark(classifier, "cifar10", "corruptions", n_examples=10, **options)
    fog = np.load(corrupted / "CIFAR-10-C" / "fog.npy", mmap_mode="r+")
    fog[20_000] += 1
    fog.flush()
    with pytest.raises(ValueError, match="the images of fog, severity 3, are not those that were recorded"):
        benchmark(classifier, "cifar10", "corruptions", **options)
    changed = benchmark(classifier, "cifar10", "corruptions", data_dir=corrupted, verbose=False)
    assert changed.data_sha256 != result.data_sha256
    (corrupted / "CIFAR-10-C" / "frost.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"no frost in .*CIFAR-10-C.*Put the published folder CIFAR-10-C into"):
        benchmark(classifier, "cifar10", "corruptions", data_dir=corrupted, verbose=False)


def test_a_model_that_fails_on_corrupted_images_is_refused(corrupted):
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.calls = halves(), 0

        def forward(self, x):
            self.calls += 1
            return self.model(x) * (torch.nan if self.calls > 12 else 1)  # the natural images take 10

    with pytest.raises(ValueError, match="its logits hold NaN or Inf"):
        benchmark(make_classifier(Fragile()), "cifar10", "corruptions", data_dir=corrupted, batch_size=3, verbose=False)


def test_with_globals_leaves_the_function_alone_and_knows_its_names():
    found = compat.with_globals(offline, urllib=None)
    with pytest.raises(AttributeError):
        found()
    with pytest.raises(urllib.error.URLError):
        offline()
    with pytest.raises(RuntimeError, match=r"module has the names \['missing'\]"):
        compat.with_globals(offline, missing=None)


def test_plain_robustbench_and_ours_in_a_new_interpreter(tmp_path):
    """States which breaks of the published package are there, and that none reaches the benchmark."""
    make_cifar(tmp_path / "data" / "cifar-10-batches-py", n=4)
    code = """
import importlib.util as u
missing = [n for n in ("pkg_resources", "autoattack") if u.find_spec(n) is None]
try:
    import robustbench
    print("imports")
except ModuleNotFoundError as error:
    print("fails", error.name, *missing)
from art_lbgat.robustbench import benchmark, load_classifier
from torch import nn
from art.estimators.classification import PyTorchClassifier
model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0, 1), device_type="cpu")
print(benchmark(classifier, attacks="apgd-ce", verbose=False).label)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain, label = done.stdout.splitlines()
    if plain != "imports":  # upstream may mend it, or a user may have the missing packages
        _, name, *missing = plain.split()
        assert name in missing
    assert "4 images instead of 10,000" in label
