"""The examples run as a reader runs them, at toy size, and print what they promise."""

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "boundary_tour.ipynb"
SLURM = EXAMPLES / "slurm.sh"
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def run(command, folder):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def write_tree(root, classes, size, numbers, suffix):
    """Images whose bright stripe tells the class."""
    generator = np.random.default_rng(0)
    for part, label in itertools.product(numbers, range(len(classes))):
        folder = root / part / classes[label]
        folder.mkdir(parents=True)
        for i in range(numbers[part]):
            image = generator.integers(0, 120, (size, size, 3), dtype=np.uint8)
            width = size // len(classes)
            image[width * label : width * (label + 1)] += 130
            Image.fromarray(image).save(folder / f"{i}.{suffix}")
    return root


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short_and_tested(path):
    assert path.read_text().count("\n") < 80
    assert f'"{path.name}"' in Path(__file__).read_text()


def test_quickstart(tmp_path):
    out = run([EXAMPLES / "quickstart.py", 6], tmp_path)
    assert "one training step costs 23 F + 3 Fg" in out
    names = ("natural", "ART PGD-20", "ART AutoAttack")
    natural, *robust = (float(re.search(rf"^{name} +(\d+\.\d)%$", out, re.MULTILINE)[1]) for name in names)
    assert natural > 80
    assert all(10 < accuracy < natural for accuracy in robust)


def test_recipe(tmp_path):
    out = run([EXAMPLES / "recipe.py", 5], tmp_path)
    assert "lbgat6-cifar100-wrn34-10: LBGAT + TRADES (a=6), 27 F + 3 Fg per step, 60.64 / 29.33" in out
    assert "highest robust validation accuracy" in out
    assert re.search(r"natural +0.0 +0 +0 +599 +0\.\d+", out)


def test_art_pipeline(tmp_path):
    out = run([EXAMPLES / "art_pipeline.py", 4, 10], tmp_path)
    attacks, curve, evaluation = re.split(r"^ART's security curve.*$|^This package's.*$", out, flags=re.MULTILINE)
    models = ("natural", "LBGAT", "natural, smoothed", "LBGAT, smoothed")
    found = re.findall(r"^  (\S.*?) +none +(\S+)%  FGM +(\S+)%  PGD-20 +(\S+)%  Square +(\S+)%", attacks, re.MULTILINE)
    assert tuple(name for name, *_ in found) == models
    accuracies = {name: [float(value) for value in values] for name, *values in found}
    assert accuracies["natural"][0] >= 80
    assert accuracies["LBGAT"][2] > accuracies["natural"][2]  # under PGD-20
    assert accuracies["LBGAT"][0] > accuracies["LBGAT"][2]
    curves = [re.findall(r"0\.\d+: +(\S+)%", line) for line in curve.strip().splitlines()]
    assert [len(values) for values in curves] == [4] * 4
    assert all(float(values[0]) >= float(values[-1]) for values in curves)
    assert re.search(r"^LBGAT, smoothed +0\.\d+ +0\.\d+ +0\.\d+ +0\.\d+$", evaluation, re.MULTILINE)
    assert len(re.findall(r"^LBGAT(?:, smoothed)?: .*(?:checks passed|checks failed)", evaluation, re.MULTILINE)) == 2


def test_robustbench_row(tmp_path):
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    tree = write_tree(tmp_path / "tree", classes, 32, {"train": 12, "test": 2}, "png")
    command = [EXAMPLES / "robustbench_row.py", tree, "--nb-epochs", 1, "--limit", 100, "--n-examples", 10]
    out = run(command, tmp_path)
    assert "not RobustBench standard: 10 images instead of 10,000; images that are not the published files" in out
    assert re.search(r"^LBGAT small CNN, cifar10 Linf: robust \d+\.\d+ %, rank \d+ of 100", out, re.MULTILINE)
    assert re.search(r"^ +\d+ > +LBGAT small CNN ", out, re.MULTILINE)
    result = json.loads((tmp_path / "results" / "benchmark" / "result.json").read_text())
    assert result["model_name"] == "LBGAT small CNN"


def test_own_images(tmp_path):
    tree = write_tree(tmp_path / "pets", ("cats", "dogs", "owls"), 16, {"train": 40, "test": 8}, "jpg")
    out = run([EXAMPLES / "own_images.py", tree, "--size", 16, "--nb-epochs", 3, "--n-test", 6, "--eps", 60], tmp_path)
    assert re.search(r"1\d\d images to train on, \(3, 16, 16\), classes cats, dogs, owls", out)
    accuracies = dict(re.findall(r"^ *(LBGAT|natural) +natural +6 +(\S+) ", out, re.MULTILINE))
    assert float(accuracies["natural"]) > 0.6
    assert "LBGAT" in accuracies
    results = tmp_path / "results" / "own-images"
    assert all(text in (results / "report.html").read_text() for text in ("A robust classifier of pets", "owls"))
    assert (results / "robust.safetensors").stat().st_size > 10_000


def test_guide_ensemble(tmp_path):
    out = run([EXAMPLES / "guide_ensemble.py", 3], tmp_path)
    costs = re.findall(r"^(one guide|three guides): 23 F \+ (\d) Fg per step, guidance loss \d", out, re.MULTILINE)
    assert costs == [("one guide", "1"), ("three guides", "3")]
    rows = re.findall(r"^(CNN|another CNN|MLP, standardised|one guide|three guides) +(\S+) +(\S+)$", out, re.MULTILINE)
    robust = {name: float(value) for name, _, value in rows}
    assert len(robust) == 5
    assert min(robust["one guide"], robust["three guides"]) > max(robust["CNN"], robust["another CNN"])
    assert out.count("says on natural images: one guide") == 3


def test_distributed_train_over_two_processes(tmp_path):
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    out = run([*start, EXAMPLES / "distributed_train.py", "runs", 2], tmp_path)
    assert re.findall(r"^\d +(\d) +\d+\.\d+ +0\.\d+ ", out, re.MULTILINE) == ["1", "2"]  # by the main process alone
    assert list((tmp_path / "runs").glob("fit-*"))


@pytest.mark.parametrize(
    ("ends", "stale", "interrupted", "requeued"), [(0, True, False, []), (1, False, True, ["scontrol requeue 42"]), (1, True, False, [])],
    ids=["done", "interrupted", "failed"],
)  # fmt: skip
def test_slurm_script_puts_an_interrupted_job_back(tmp_path, ends, stale, interrupted, requeued):
    """With an ``srun`` that ends so, and leaves the file of an interrupted run or not."""
    commands, log, mark = tmp_path / "bin", tmp_path / "log", tmp_path / "run" / "fit-0" / "interrupted.json"
    commands.mkdir()
    mark.parent.mkdir(parents=True)
    if stale:  # of an earlier job
        mark.touch()
    bodies = {
        "srun": f'echo "srun $*" >> "{log}"\n{f"touch {mark}" if interrupted else ""}\nexit {ends}',
        "scontrol": f'echo "scontrol $*" >> "{log}"\nif [ "$1" = show ]; then seq -f node%g 7 20000; fi',
    }
    for name, body in bodies.items():
        (commands / name).write_text(f"#!/bin/bash\n{body}\n")
        (commands / name).chmod(0o755)
    environment = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-20000]", "SLURM_NNODES": "2",
                   "SLURM_JOB_ID": "42"}  # fmt: skip
    done = subprocess.run([shutil.which("bash"), SLURM, tmp_path / "run"], env=environment, cwd=ROOT, check=False)
    assert done.returncode == ends
    said = log.read_text().splitlines()
    assert said[0] == "scontrol show hostnames node[7-20000]"
    assert "srun torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3" in said[1]
    assert "--rdzv-endpoint node7:29500 --rdzv-id 42" in said[1]
    assert said[1].endswith(f"examples/distributed_train.py {tmp_path}/run")
    assert said[2:] == requeued


def cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def printing(source):
    """The code of a cell, its last expression printed as a notebook shows it."""
    tree = ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE))
    if isinstance(tree.body[-1], ast.Expr):
        shown = tree.body[-1].value
        tree.body[-1].value = ast.Call(ast.Name("print", ast.Load()), [shown], [])
    return ast.unparse(ast.fix_missing_locations(tree))


def test_notebook_was_run_from_top_to_bottom_and_holds_its_outputs():
    text = NOTEBOOK.read_text()
    assert len(text) < 1_000_000
    assert not re.search(r"site-packages|/home/|/root/|/work/", text)
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    outputs = [output for cell in cells() for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"execute_result", "display_data"}  # no error, no warning
    data = [output["data"] for output in outputs]
    assert sum("image/png" in kinds for kinds in data) == 6
    assert sum("text/html" in kinds for kinds in data) == 7
    assert any("LBGAT" in "".join(kinds["text/plain"]) for kinds in data)


def test_notebook_runs_at_toy_size(tmp_path):
    sources = ["".join(cell["source"]) for cell in cells()]
    sources[0] = re.sub(r"EPOCHS = \d+", "EPOCHS = 3", re.sub(r"RESOLUTION = \d+", "RESOLUTION = 30", sources[0]))
    assert cells()[0]["metadata"]["tags"] == ["parameters"]
    (tmp_path / "tour.py").write_text(
        "import pandas\npandas.set_option('display.width', 250, 'display.max_columns', 30)\n"
        + "\n".join(map(printing, sources))
    )
    out = run(["tour.py"], tmp_path)
    seen = re.findall(r" (LBGAT|PGD-AT) +(natural|adversarial) +(natural|adversarial) +599 +0\.\d+ ", out)
    assert len(seen) == 6
    accuracies = dict(re.findall(r" (guide|natural) +natural +599 +(\d\.\d+)", out))
    assert set(accuracies) == {"guide", "natural"}
    assert all(float(accuracy) > 0.7 for accuracy in accuracies.values())  # the calibration table, after three epochs
    assert len(re.findall(r" guide +LBGAT +(?:digit|even|above four|mean) ", out)) == 4
