"""The study of one GPU: every line at toy size, stopped and gone on with, and what it installs."""

import contextlib
import io
import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from art_lbgat.evaluation import paired_difference
from art_lbgat.recipes import RECIPES
from scripts import gpu_study

ROOT = Path(__file__).parent.parent
TRAINED = ("natural guide", "LBGAT, MSE + CE", "TRADES (6)", "PGD-AT", "BGAT, MSE + CE")


def write_zip(path, classes="abcde", parts=(("train", 8), ("test", 4)), size=16):
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no image")
        for part, count in parts:
            for name in classes:
                for number in range(count):
                    file = io.BytesIO()
                    image = generator.integers(256, size=(size, size, 3), dtype=np.uint8)
                    Image.fromarray(image).save(file, "JPEG")
                    archive.writestr(f"cifar/{part}/{name}/{number}.jpg", file.getvalue())
    return path


def call(*arguments):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        gpu_study.main(list(map(str, arguments)))
    return said.getvalue()


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """A call whose time is over at once, and one that goes on with what is missing: what they said, and the folder."""
    folder = tmp_path_factory.mktemp("study")
    path, output = write_zip(folder / "toy.zip"), folder / "out"
    before = list(sys.path)
    said = [call(path, "--dry-run", "--output", output, *more) for more in (("--minutes", "0.134"), ("--seeds", "2"))]
    sys.path[:] = before
    return said, output, path


def found(output):
    return json.loads((output / "results.json").read_text())


def test_a_call_without_time_says_so_and_the_next_goes_on(dry):
    (first, second), output, _ = dry
    assert "the time is over; the same command goes on with what is missing" in first
    assert "the time is over" not in second
    runs = found(output)["runs"]
    assert {(run["arm"], run["seed"]) for run in runs.values()} >= {(arm, seed) for arm in TRAINED for seed in (0, 1)}
    for run in runs.values():
        assert len(run["natural_right"]) == 20
        assert run["epochs"] == len(run["epoch_seconds"]) == 1
        assert len(run.get("robust_right", "")) == 4 * (run["arm"] != "natural guide")
        assert all(a >= b for a, b in zip(run["natural_right"], run.get("robust_right", ""), strict=False))
    assert not list(output.glob("*/checkpoints"))
    assert (output / "LBGAT-MSE-CE-seed-0" / "guide-0.safetensors").is_file()


def test_every_part_is_there(dry):
    (_, said), output, _ = dry
    study = found(output)
    assert set(study["table"]) == {"4", "8"}
    for row in study["table"].values():
        assert {"exact", "authors", "floor", "bf16"} <= set(row["seconds"])
        assert all(0 < row["epoch"][name] <= seconds for name, seconds in row["seconds"].items())
        assert (
            row["passes"] == 2 * 1 + 1 + 1 + 1 + 2 + 3
        )  # K = 1: starts, attack, both student forwards, backward, guide
    runs = study["runs"]
    for row in study["differences"]:
        pair = [np.array([list(runs[f"{arm}, seed {seed}"][f"{row['kind']}_right"]) for seed in (0, 1)]) == "1"
                for arm in (row["arm"], row["to"])]  # fmt: skip
        assert (row["value"], row["low"], row["high"], row["seeds"]) == paired_difference(*pair)
    compared = {(row["arm"], row["to"], row["kind"]) for row in study["differences"]}
    assert {("LBGAT, MSE + CE", "PGD-AT", "robust"), ("LBGAT, MSE + CE", "TRADES (6)", "natural")} <= compared
    for arm, (name, _) in gpu_study.ARMS.items():
        there = any(f"{family}-{name}" in RECIPES for family in gpu_study.FAMILIES)
        assert there == (arm not in study["notes"])
        assert arm in said
    assert "| card | batch | way | ms per step | authors / this |" in said


def test_what_is_done_is_not_done_again(dry):
    _, output, path = dry
    files = {each: each.stat().st_mtime_ns for each in output.rglob("*.safetensors")}
    before = found(output)
    said = call(path, "--dry-run", "--output", output, "--seeds", "2")
    assert {each: each.stat().st_mtime_ns for each in output.rglob("*.safetensors")} == files
    assert found(output) == before
    assert "epochs in" not in said
    run = before["runs"]["PGD-AT, seed 1"]
    (output / "results.json").write_text(json.dumps(before | {"runs": {**before["runs"], "PGD-AT, seed 1": {
        name: run[name] for name in ("arm", "seed", "way", "epochs", "epoch_seconds")}}}))  # fmt: skip
    call(path, "--dry-run", "--output", output, "--seeds", "2")  # trained, and not judged
    again = found(output)["runs"]["PGD-AT, seed 1"]
    assert {name: again[name] for name in ("natural_right", "robust_right")} == {
        name: run[name] for name in ("natural_right", "robust_right")
    }


def test_epochs_and_options_follow_from_what_was_measured(tmp_path, monkeypatch):
    study = gpu_study.Study(tmp_path, 0.0, dry=False)
    seconds = {"exact": 1.0, "bf16": 0.5, "bf16 + channels_last + compile": 0.25}
    warm = {"exact": 0.0, "bf16": 1.0, "bf16 + channels_last + compile": 40.0}
    study.found["table"] = {
        "128": {"seconds": seconds, "epoch": seconds, "warm-up": warm, "passes": 10}, "512": {"seconds": {}, "warm-up": {}, "passes": 10}
    }  # fmt: skip
    assert gpu_study.fastest(study, 60.0, 256) == ("bf16", 1.0, 0.5 / 128 / 10)
    assert gpu_study.fastest(study, 100.0, 256)[0] == "bf16 + channels_last + compile"
    recipe = gpu_study.find_recipe(study, "LBGAT, MSE + CE", gpu_study.RUNS["bf16"])
    assert (recipe.model, recipe.guides, recipe.guidance, recipe.run.precision) == (
        "resnet-18", ("resnet-18",), "mse+ce", "bf16")  # fmt: skip
    assert recipe.batch_size == 128
    monkeypatch.setitem(RECIPES, "quick-cifar10-lbgat", RECIPES["cifar10-small-lbgat"].override(
        id="quick-cifar10-lbgat", nb_epochs=7, batch_size=99))  # fmt: skip
    recipe = gpu_study.find_recipe(study, "LBGAT, MSE + CE", {})
    assert (recipe.id, recipe.nb_epochs, recipe.batch_size, recipe.run.ema_decay) == (
        "quick-cifar10-lbgat",
        7,
        99,
        None,
    )
    monkeypatch.delitem(RECIPES, "cifar10-small-madry")
    if "quick-cifar10-madry" not in RECIPES:
        assert gpu_study.find_recipe(study, "PGD-AT", {}) is None
        assert study.found["notes"]["PGD-AT"] == "left out, there is no recipe cifar10-small-madry"


def test_data_and_devices_that_do_not_fit(tmp_path, capsys):
    for arguments in ([tmp_path / "no.zip", "--dry-run"], [write_zip(tmp_path / "a.zip")]):
        if len(arguments) == 1 and __import__("torch").cuda.is_available():
            continue
        with pytest.raises(SystemExit, match="2"):
            call(*arguments, "--output", tmp_path / "out")
    said = capsys.readouterr().err
    assert "expected the zip of JPEG files" in said
    with pytest.raises(ValueError, match=r"data: expected test/<class>/\*.jpg for each class \['a', 'b'\]"):
        gpu_study.decode(write_zip(tmp_path / "b.zip", "ab", (("train", 1),)), tmp_path / "data.npz", None)
    gpu_study.decode(write_zip(tmp_path / "c.zip", "ab"), tmp_path / "data.npz", 3)
    with np.load(tmp_path / "data.npz") as arrays:
        assert (arrays["x_train"].shape, arrays["y_test"].tolist()) == ((6, 16, 16, 3), [0, 0, 0, 1, 1, 1])


def test_wheels_of_what_is_missing_are_installed_beside_the_output(tmp_path):
    for name in ("gpu_study_probe", "numpy"):  # the second is there, whatever its version
        with zipfile.ZipFile(tmp_path / f"{name}-9.9-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "ANSWER = 42\n")
            wheel.writestr(f"{name}-9.9.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
            wheel.writestr(
                f"{name}-9.9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{name}-9.9.dist-info/RECORD", "")
    code = (
        "from pathlib import Path; from scripts.gpu_study import install\n"
        f"install(Path({str(tmp_path)!r}), Path({str(tmp_path / 'out')!r}))\n"
        "import gpu_study_probe; print(gpu_study_probe.ANSWER)"
    )
    for _ in range(2):  # the second finds it there
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == "42"
    assert {each.stem for each in (tmp_path / "out" / "packages").glob("*.py")} == {"gpu_study_probe"}


def test_the_list_of_wheels_is_what_the_package_needs_without_torch():
    names = dict(line.split("==") for line in gpu_study.wheel_list())
    assert {"adversarial-robustness-toolbox", "pyautoattack", "pandas", "six", "scikit-learn"} <= set(names)
    assert not {name for name in names if name.startswith(("torch-", "nvidia", "triton", "cuda"))} | (
        {"torch", "torchvision", "pytest"} & set(names))  # fmt: skip
    assert names["scipy"] == metadata.version("scipy")
