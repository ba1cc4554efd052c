"""The documents: links lead somewhere, the code in them runs, the commands in them exist, all of it builds."""

import multiprocessing
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from art_lbgat.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")])
COMMAND = r"^ {4}art-lbgat (.+(?:\\\n.+)*)$"

# Blocks run in forks of one process that has imported what takes seconds, so that they cost what they do themselves.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.test_docs", "art_lbgat.trainers", "art_lbgat.evaluation", "art_lbgat.recipes"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_local_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_index_links_every_page():
    """Also for who reads the files as they are, without Sphinx."""
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\((\S+?\.md)\)", index)) - {"reference/index.md"}


def run(code, folder):
    """In a process of its own: with one epoch and a few samples."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.chdir(folder)
    import torch

    torch.set_num_threads(1)
    short = re.sub(r"nb_epochs=\d+", "nb_epochs=1", code)
    short = re.sub(r"x\[:\d+\], y\[:\d+\]", "x[:4], y[:4]", short)
    try:
        exec(compile(short, "block", "exec"), {"__name__": "__main__"})  # noqa: S102 (what the pages say)
    except BaseException:
        Path("error.txt").write_text(traceback.format_exc())
        raise SystemExit(1) from None


def check_runs(code, folder):
    process = FORKS.Process(target=run, args=(code, folder))
    process.start()
    process.join()
    error = folder / "error.txt"
    assert process.exitcode == 0, error.read_text() if error.exists() else process.exitcode


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


BLOCKS = {f"{page.name}-{i}": code for page in PAGES for i, code in enumerate(python_blocks(page))
          if page.name != "tutorial.md"}  # fmt: skip


@pytest.mark.parametrize("code", BLOCKS.values(), ids=BLOCKS)
def test_python_blocks_run(code, tmp_path):
    """Each block by itself."""
    check_runs(code, tmp_path)


@pytest.fixture
def photos(tmp_path):
    """Photos of two classes in JPEG files of several sizes."""
    generator = np.random.default_rng(0)
    for label, colour in (("day", 170), ("night", 60)):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for i in range(15):
            pixels = generator.integers(colour - 40, colour + 40, (40 + i, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return tmp_path


def test_tutorial_runs(photos):
    """All its blocks, then its commands, as a reader would enter them but for fewer epochs."""
    page = ROOT / "docs" / "tutorial.md"
    check_runs("\n".join(python_blocks(page)), photos)
    assert (photos / "photos.html").stat().st_size > 10_000
    quick = {"demo": "--nb-epochs 1 --seeds 1 --n-autoattack 0 --workers 1 --method PGD-AT --method LBGAT",
             "train": "--nb-epochs 1", "evaluate": ""}  # fmt: skip
    lines = re.findall(COMMAND, page.read_text(), re.MULTILINE)
    assert {line.split()[0] for line in lines} == {"demo", "train", "evaluate"}
    for line in lines:
        words = f"{line.replace(' --attack autoattack', '')} {quick[line.split()[0]]}".split()
        check_runs(
            f"import sys\nsys.argv[1:] = {words}\nfrom art_lbgat.cli.main import app\n"
            "if __name__ == '__main__':\n    app(standalone_mode=False)",
            photos,
        )
    assert (photos / "runs" / "photos-cli" / "report.html").exists()
    assert "class night" in (photos / "results" / "photos" / "report.html").read_text(encoding="utf-8")


COMMANDS = {f"{page.name}-{i}": text for page in PAGES
            for i, text in enumerate(re.findall(COMMAND, page.read_text(), re.MULTILINE))}  # fmt: skip


@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS)
def test_commands_have_the_options_that_are_written(text):
    """Every ``art-lbgat`` line names a command and options that there are."""
    words = [word for word in re.sub(r"\\\n|#.*", " ", text).split() if not set(word) & set("|<>;&")]
    name, group = words[0], typer.main.get_command(app).commands
    assert name in {*group, "COMMAND"}
    if name in group:
        taken = {option for parameter in group[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= {*taken, "--help"}


def test_the_pages_build_without_a_warning(tmp_path):
    """With every name in a docstring found, every page in a table of contents, every anchor there."""
    pytest.importorskip("furo")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "trainers.html").read_text()
    assert "art_lbgat.LBGATTrainer" in reference
    assert "guide_ce_weight" in reference
    assert "art-lbgat train" in (tmp_path / "reference" / "cli.html").read_text()
    assert "lbgat6-cifar100-wrn34-10" in (tmp_path / "reference" / "recipes.html").read_text()
