"""The benchmark: RobustBench's own numbers, what they are called, and images that are not there or not what they seem."""

import hashlib
import json
import pickle  # noqa: TID251 (CIFAR's own format)
import shutil
import sys
import urllib.error
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from art.defences.postprocessor import ReverseSigmoid
from PIL import Image
from torch import nn
from torchvision import datasets

from art_lbgat import robustbench_import as compat
from art_lbgat.evaluation.record import Record
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.robustbench import BenchmarkResult, benchmark, import_robustbench
from art_lbgat.robustbench.images import load_images
from art_lbgat.robustbench.result import EPS, N_EXAMPLES, differences_from_standard
from tests.conftest import make_classifier as made_classifier

N = 30
FAST = {"attacks": ["apgd-ce", "square"], "verbose": False, "batch_size": 16}


def centres(classes):
    """By how many levels the left half of a class is brighter: some classes lie close together, some apart."""
    return np.array([0, 8, 16, 24, 60, 100, 140, 150, 160, 200]) if classes == 10 else np.arange(classes) * 10


def make_images(n=N, classes=10):
    """The left and right half of an image tell its class by their brightness; uint8 ``(n, 3, 32, 32)``."""
    y = np.arange(n) % classes
    x = np.random.default_rng(0).integers(110, 130, (n, 3, 32, 32))
    half = (centres(classes)[y] // 2).reshape(-1, 1, 1, 1)
    x[:, :, :, :16] += half
    x[:, :, :, 16:] -= half
    return x.astype(np.uint8), y


def make_cifar(folder, n=N, classes=10):
    """Images of one's own in the place of CIFAR."""
    for i, (image, label) in enumerate(zip(*make_images(n, classes), strict=True)):
        path = folder / "test" / f"{label:02}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_cifar(folder)
    x, y, _ = load_images("cifar10", "Linf", None, folder)
    return folder, x.numpy(), y.numpy()


def test_images_of_ones_own_are_numbered_by_their_classes_whatever_else_lies_there(tmp_path, cifar):
    make_cifar(tmp_path)
    shutil.copytree(tmp_path / "test" / "03", tmp_path / "test" / ".ipynb_checkpoints")
    x, y, published = load_images("cifar10", "Linf", None, tmp_path)
    assert (published, np.array_equal(x, cifar[1]), np.array_equal(y, cifar[2])) == (False, True, True)
    (tmp_path / "test" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^data_dir: expected images in every folder .* none in \['empty'\]"):
        load_images("cifar10", "Linf", None, tmp_path)


def make_classifier(model, classes=10, shape=(3, 32, 32), **kwargs):
    return made_classifier(model, shape=shape, classes=classes, optimizer=None, **kwargs)


def halves(classes=10, scale=40.0):
    """Logits that compare the difference of the two halves with what each class should have."""
    model = nn.Sequential(nn.AvgPool2d((32, 16)), nn.Flatten(), nn.Linear(6, classes))
    with torch.no_grad():
        centre = torch.from_numpy(centres(classes) / 255)
        model[2].weight.copy_(torch.outer(centre, torch.tensor([1.0, -1, 1, -1, 1, -1]).double() / 3) * scale)
        model[2].bias.copy_(-(centre**2) / 2 * scale)
    return model


class Changed(nn.Module):
    """The same, and what a test does to the logits."""

    def __init__(self, function):
        super().__init__()
        self.model, self.function = halves(), function

    def forward(self, x):
        return self.function(self.model(x))


@pytest.fixture(scope="module")
def classifier():
    return make_classifier(halves())


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Tiny files that pass for the published ones: their checksums stand in torchvision's list."""
    x, y = make_images()
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    contents = {
        "test_batch": {"data": x.reshape(len(x), -1), "labels": y.tolist()},
        "batches.meta": {"label_names": list("0123456789")},
    }
    sums = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()  # noqa: S324
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return tmp_path, x, y


@pytest.mark.parametrize(("threat_model", "eps"), [("Linf", 8 / 255), ("L2", 0.5)])
def test_numbers_are_those_of_robustbench(threat_model, eps, classifier, published, few_queries, monkeypatch):
    folder, _, _ = published
    package = import_robustbench()

    def seeded(*args, **options):
        attack = compat.AutoAttack(*args, seed=5, **options)
        attack.square.n_queries = 50
        return attack

    monkeypatch.setattr(package.eval, "AutoAttack", seeded)
    options = {"n_examples": 12, "threat_model": threat_model, "data_dir": str(folder), "batch_size": 8}
    theirs = package.benchmark(classifier.model, dataset="cifar10", eps=eps, **options)
    ours = benchmark(classifier, seed=5, verbose=False, **options)
    assert (ours.natural.value, ours.robust.value) == pytest.approx(theirs, abs=1e-9)
    assert 0 < ours.robust.value < ours.natural.value == 1
    assert ours.robust.value == ours.attacks["square"] == min(ours.attacks.values())
    assert ours.label == "not RobustBench standard: 12 images instead of 10,000"


def test_a_tiny_set_is_read_labelled_and_evaluated_to_the_end(classifier, cifar, capsys):
    before, mode = torch.get_rng_state(), classifier.model.training
    result = benchmark(classifier, data_dir=cifar[0], eps=0.02, n_examples=20, attacks="apgd-ce", verbose=False)
    assert torch.equal(before, torch.get_rng_state())
    assert classifier.model.training == mode
    assert result.natural == Accuracy(20, 20)
    assert not result.standard
    for difference in ("eps 0.02 instead of 8/255", "20 images", "not the published files", "attacks apgd-ce instead"):
        assert difference in result.label
    assert {"art-lbgat", "torch", "robustbench", "pyautoattack"} <= set(result.versions)
    assert sum(result.seconds.values()) > 0
    assert result.weights_sha256 != result.data_sha256
    assert capsys.readouterr().out == ""


def test_a_result_survives_json_and_has_one_row(classifier, cifar, few_queries, tmp_path):
    result = benchmark(classifier, data_dir=cifar[0], model_name="Mine2026First", architecture="halves", **FAST)
    result.save(tmp_path / "result.json")
    assert BenchmarkResult.load(tmp_path / "result.json") == result
    row = result.to_frame().iloc[0]
    assert (row.model, row.architecture, row.n, row.natural) == ("Mine2026First", "halves", N, 1.0)
    assert row.robust_low < row.robust < row.robust_high
    assert row["square"] == row.robust
    assert "Mine2026First, cifar10 Linf, eps 0.031373, n = 30: natural 100.00 %" in str(result)
    changed = json.loads(result.to_json()) | {"label": "RobustBench standard"}
    assert BenchmarkResult.from_json(json.dumps(changed)).label == result.label
    for broken in ("[]", "nonsense", '{"natural": [1, 2]}'):
        with pytest.raises(ValueError, match=r"expected what BenchmarkResult\.to_json wrote"):
            BenchmarkResult.from_json(broken)


def test_preprocessing_and_clip_values_are_inside_the_model_that_is_attacked(classifier, cifar, few_queries):
    expected = benchmark(classifier, data_dir=cifar[0], **FAST)
    scaled = make_classifier(nn.Sequential(halves()), clip_values=(0.0, 255.0), preprocessing=(0.0, 255.0))
    found = benchmark(scaled, data_dir=cifar[0], **FAST)
    assert found.natural == expected.natural
    assert abs(found.robust.correct - expected.robust.correct) <= 1
    shifted = make_classifier(halves(), preprocessing=(0.5, 3.0))
    assert benchmark(shifted, data_dir=cifar[0], **FAST).natural.value < 0.5


def test_killed_it_goes_on_and_refuses_another_run(classifier, cifar, few_queries, tmp_path):
    options = {"data_dir": cifar[0], "state_path": tmp_path / "state", **FAST}
    whole = benchmark(classifier, data_dir=cifar[0], **FAST)
    add, count = Record.add, Counter()

    def stop(self, part, entry, place=0):
        count[part] += 1
        add(self, part, entry, place)
        if count[part] == 1:
            raise KeyboardInterrupt
        return entry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "add", stop)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                benchmark(classifier, **options)
    assert benchmark(classifier, **options) == whole
    for other, changed in (({"eps": 0.02}, "eps"), ({"n_examples": 10}, "data"),
                           ({"classifier": make_classifier(halves(scale=41.0))}, "weights")):  # fmt: skip
        message = f"belongs to another run, so to resume it would mix two .*{changed}: recorded"
        with pytest.raises(ValueError, match=message):
            benchmark(**{"classifier": classifier, **options, **other})


def test_a_model_that_answers_otherwise_does_not_go_on(cifar, few_queries, tmp_path):
    module = Changed(lambda z: z)
    options = {"data_dir": cifar[0], "state_path": tmp_path / "state", **FAST}
    benchmark(make_classifier(module), **options)
    module.function = lambda z: z / 4
    with pytest.raises(ValueError, match="the model gives other logits for the same images than it recorded"):
        benchmark(make_classifier(module), **options)


@pytest.mark.parametrize("key", [*EPS, ("cifar10", "corruptions")])
def test_standard_is_the_full_set_and_the_published_eps(key):
    n, published = N_EXAMPLES[key[0]], EPS.get(key)
    eps = None if published is None else published.value
    assert differences_from_standard(*key, eps, n) == ()
    assert differences_from_standard(*key, eps, 1000) == (f"1,000 images instead of {n:,}",)
    if published is not None:
        expected = f"eps 0.031 instead of {published.text}"
        assert differences_from_standard(*key, eps + 1e-8, n) == ()
        assert differences_from_standard(*key, 0.031, 9) == (expected, f"9 images instead of {n:,}")
    assert differences_from_standard("imagenet", "L2", 0.5, 5000) == ("there is no leaderboard for imagenet L2",)


def test_published_files_and_all_attacks_are_standard(classifier, published, few_queries, monkeypatch):
    folder, x, y = published
    images, labels, _ = load_images("cifar10", "Linf", None, folder)
    assert np.array_equal(images.numpy(), x.astype(np.float32) / 255)
    assert np.array_equal(labels.numpy(), y)
    monkeypatch.setitem(N_EXAMPLES, "cifar10", 6)
    assert benchmark(classifier, data_dir=folder, n_examples=6, verbose=False).label == "RobustBench standard"


def test_a_randomised_model_is_flagged_and_never_gets_the_higher_number(cifar, few_queries):
    noisy = Changed(lambda z: z + 0.02 * torch.randn(len(z), 10))
    result = benchmark(make_classifier(noisy), data_dir=cifar[0], **FAST)
    assert "randomised" in result.flags
    assert "flags: randomised" in str(result)
    assert result.robust.value <= result.attacks["square"]


def test_answers_that_differ_on_a_second_look_are_flagged(cifar, monkeypatch):
    """Deterministic in the checks of the first batch, but not when the adversarial images are evaluated again."""

    class Tired(Changed):
        def forward(self, x):
            logits = self.model(x)
            return logits if x.requires_grad or len(x) != 7 else logits.roll(1, dims=1)

    module = sys.modules[benchmark.__module__]
    attack_images = module.attack_images
    monkeypatch.setattr(module, "attack_images", lambda *a, **k: attack_images(*a[:7], 30, *a[8:], **k))
    options = {"attacks": "apgd-ce", "verbose": False, "batch_size": 7, "n_examples": 28}
    result = benchmark(make_classifier(Tired(None)), data_dir=cifar[0], **options)
    assert "evaluated again" in result.flags["randomised"]
    assert result.robust.correct == 0


MASKED = {
    "saturated": (lambda z: 1e5 * z, "zero gradients"),
    "rounded": (lambda z: z.round() + 0 * z, "zero gradients"),
    "batch": (lambda z: z - z.mean(dim=0), "batch dependent"),
    "softmax": (lambda z: z.softmax(dim=1), "softmax"),
    "nothing": (lambda z: z, None),
}


@pytest.mark.parametrize(("function", "flag"), MASKED.values(), ids=MASKED)
def test_masked_gradients_are_flagged_whatever_the_attacks(function, flag, cifar):
    options = {"data_dir": cifar[0], "verbose": False, "batch_size": 16, "attacks": "apgd-ce"}
    result = benchmark(make_classifier(Changed(function)), **options)
    assert (flag in result.flags) if flag else not result.flags
    assert ("flagged softmax" in result.label) == (flag == "softmax")


def test_a_model_without_a_graph_is_refused_where_gradients_are_needed(cifar, few_queries):
    classifier = make_classifier(Changed(lambda z: z.detach()))
    options = {"data_dir": cifar[0], "verbose": False}
    with pytest.raises(ValueError, match="classifier: its logits have no graph to its inputs"):
        benchmark(classifier, **options)
    assert benchmark(classifier, attacks=["square"], **options).natural.value == 1


def test_postprocessing_is_inside_the_model_that_is_judged(cifar, few_queries):
    reverse = make_classifier(
        Changed(lambda z: z.softmax(dim=1)), postprocessing_defences=ReverseSigmoid(beta=1.0, gamma=0.1)
    )
    predicted = reverse.predict(cifar[1]).argmax(axis=1)
    assert benchmark(reverse, data_dir=cifar[0], **FAST).natural.correct == (predicted == cifar[2]).sum()


def test_fewer_classes_are_flagged_and_labelled(tmp_path, few_queries):
    make_cifar(tmp_path, n=12, classes=4)
    result = benchmark(make_classifier(halves(4), classes=4), data_dir=tmp_path, eps=0.01, verbose=False)
    assert "few classes" in result.flags
    assert "4 classes instead of 10" in result.label


def test_cifar100(tmp_path, few_queries):
    make_cifar(tmp_path, n=20, classes=20)
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
    "too many": ({"n_examples": N + 1}, f"n_examples: expected at most {N}, as many as there are, got {N + 1}"),
    "eps of bytes": ({"eps": 8}, r"eps: expected at most 1, in units of images in \[0, 1\]"),
    "no attacks": ({"attacks": []}, "attacks: expected 'standard' or"),
    "batch_size": ({"batch_size": 0}, "batch_size: expected"),
    "attacks": ({"attacks": ["pgd"]}, "attacks: expected one of"),
    "attacks of corruptions": ({"threat_model": "corruptions", "attacks": "square"}, "attacks: expected 'standard'"),
    "no such corruptions": ({"threat_model": "corruptions_3d"}, "RobustBench has no corruptions_3d for cifar10"),
    "preprocessing": ({"preprocessing": "Res224"}, "preprocessing: expected None, only ImageNet"),
    "no name": ({"model_name": ""}, "model_name: expected a text or None, got an empty one"),
    "input shape": ({"classifier": make_classifier(nn.Flatten(), shape=(3, 8, 8))},
                    r"classifier: expected input_shape \(3, 32, 32\), the images of cifar10, got \(3, 8, 8\)"),
    "classes": ({"classifier": make_classifier(halves(4), classes=4)},
                "classifier: expected nb_classes 10 for cifar10, got 4, and there are labels up to 9"),
    "not finite": ({"classifier": make_classifier(Changed(lambda z: z * torch.nan))}, "natural images hold NaN or Inf"),
    "no range": ({"classifier": make_classifier(halves(), clip_values=None)}, "needs bounded inputs"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "match"), BAD.values(), ids=BAD)
def test_bad_arguments(change, match, classifier, cifar):
    arguments = {"classifier": classifier, "data_dir": cifar[0], "verbose": False, **change}
    with pytest.raises(ValueError, match=match):
        benchmark(**arguments)


def test_images_that_are_not_there_are_one_error(classifier, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)  # noqa: TID251 (replaced, so that nothing is fetched)
    message = r"data_dir: no CIFAR-10 in .*URLError.*Put torchvision's folder cifar-10"
    with pytest.raises(FileNotFoundError, match=message):
        benchmark(classifier, data_dir=tmp_path, verbose=False)


@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
def test_files_that_are_not_the_published_ones_are_refused(file, classifier, published):
    folder, _, _ = published
    path = folder / "cifar-10-batches-py" / file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"test_batch or .*batches.meta is missing or damaged.* your own into"):
        benchmark(classifier, data_dir=folder, verbose=False)


@pytest.fixture
def imagenet(tmp_path):
    """The first four images of RobustBench's list, which are all that is read of it, and a folder for each class."""
    package = import_robustbench()
    listed = "helper_files/imagenet_test_image_ids.txt"
    names = Path(package.loaders.pkg_resources.resource_filename("robustbench.loaders", listed)).read_text().split()
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
    images, labels, _ = load_images("imagenet", "Linf", 4, folder, None, "Salman2020Do_R18")
    classes = sorted(path.name for path in (folder / "val").iterdir())
    assert labels.tolist() == [classes.index(name.split("/")[0]) for name in names[:4]]
    assert images.shape == (4, 3, 224, 224)
    assert images[:, 0].mean(dim=(1, 2)).tolist() == pytest.approx([60 * k / 255 for k in range(4)], abs=0.01)
    for preprocessing, message in ((None, "'Res256Crop224', .* got None"), ("Res256", "did you mean")):
        with pytest.raises(ValueError, match=f"preprocessing: expected one of .*{message}"):
            benchmark(classifier, "imagenet", preprocessing=preprocessing, **options)
    with pytest.raises(FileNotFoundError, match=r"(?s)no ImageNet in .*Put all validation images"):
        load_images("imagenet", "Linf", 5, folder, "Res224")
    (folder / "val" / "n99999992").rmdir()
    with pytest.raises(FileNotFoundError, match=r"in the 1000 class folders of ImageNet .*, got 999"):
        load_images("imagenet", "Linf", 4, folder, "Res224")
    with pytest.raises(ValueError, match="n_examples: expected at most 5000"):
        load_images("imagenet", "Linf", 5001, folder, "Res224")
    with pytest.raises(FileNotFoundError, match=r"data_dir: no ImageNet in .*Put the validation images into"):
        load_images("imagenet", "Linf", 4, folder / "val", "Res224")


@pytest.fixture
def corrupted(cifar, tmp_path, monkeypatch):
    """Two kinds of corruption; files of the published length, which the loader counts on, but with holes."""
    _, x, y = cifar
    make_cifar(tmp_path)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    labels = np.zeros(50_000, dtype=np.uint8)
    images = (x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    other = images[(y[:, None] == (y + 1) % 10).argmax(axis=0)]  # of the next class
    kinds = ("fog", "frost")
    for kind in kinds:
        array = np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.uint8, (50_000, 32, 32, 3))
        for severity in range(5):
            first = severity * 10_000
            wrong = severity * 2 + (kind == "frost")  # so many images show another class
            array[first : first + N] = images
            array[first : first + wrong] = other[:wrong]
            labels[first : first + N] = y
        array.flush()
    np.save(folder / "labels.npy", labels)
    package = import_robustbench()
    enums = package.model_zoo.enums
    monkeypatch.setitem(package.data.CORRUPTIONS_DICT[enums.BenchmarkDataset("cifar10")],
                        enums.ThreatModel("corruptions"), kinds)  # fmt: skip
    return tmp_path


def test_corruptions_are_the_mean_over_kinds_and_severities(classifier, corrupted):
    path = corrupted / "state"
    options = {"dataset": "cifar10", "threat_model": "corruptions", "data_dir": corrupted, "verbose": False}
    result = benchmark(classifier, state_path=path, **options)
    expected = {kind: [(N - 2 * s - extra) / N for s in range(5)] for kind, extra in (("fog", 0), ("frost", 1))}
    assert {kind: list(each) for kind, each in result.corruptions.items()} == expected
    assert result.robust.value == pytest.approx(np.mean(list(expected.values())))
    assert result.robust.n == 2 * 5 * N
    assert (result.natural.value, result.eps) == (1.0, None)
    assert "30 images instead of 10,000" in result.label
    before = path.stat().st_mtime_ns
    assert benchmark(classifier, state_path=path, **options) == result
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="n: recorded 30, now 10"):
        benchmark(classifier, n_examples=10, state_path=path, **options)
    fog = np.load(corrupted / "CIFAR-10-C" / "fog.npy", mmap_mode="r+")
    fog[20_000] += 1
    fog.flush()
    with pytest.raises(ValueError, match="the images of fog, severity 3, are not those that were recorded"):
        benchmark(classifier, state_path=path, **options)
    assert benchmark(classifier, **options).data_sha256 != result.data_sha256
    calls = []
    fragile = Changed(lambda z: calls.append(1) or z * (torch.nan if len(calls) > 12 else 1))  # natural images take 10
    with pytest.raises(ValueError, match="its logits hold NaN or Inf"):
        benchmark(make_classifier(fragile), batch_size=3, **options)
    (corrupted / "CIFAR-10-C" / "frost.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"no frost in .*CIFAR-10-C.*Put the published folder CIFAR-10-C into"):
        benchmark(classifier, **options)
