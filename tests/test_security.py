"""No source can run code out of a file, and the linter says so of one that could."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.code_scan import findings

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("art_lbgat", "examples", "scripts") for path in (ROOT / folder).rglob("*.py"))
CAUGHT = {
    "import pickle": "import pickle",
    "import pickle as p\np.loads(b'')": "pickle.loads",
    "from pickle import loads": "import pickle.loads",
    "import _pickle": "import _pickle",
    "import cPickle": "import cPickle",
    "import dill": "import dill",
    "from cloudpickle import load": "import cloudpickle.load",
    "import shelve": "import shelve",
    "import marshal": "import marshal",
    "from joblib import load": "import joblib.load",
    "import importlib\nimportlib.import_module('pickle')": "import pickle",
    "from importlib import import_module as get\nget('dill')": "import dill",
    "__import__('os')": "__import__",
    "eval('1')": "eval",
    "list(map(eval, []))": "eval",
    "import builtins\nbuiltins.exec('')": "builtins.exec",
    "from builtins import eval as e": "import builtins.eval",
    "exec('')": "exec",
    "compile('', '', 'exec')": "compile",
    "import yaml\nyaml.load('')": "yaml.load",
    "import yaml\nyaml.unsafe_load('')": "yaml.unsafe_load",
    "from yaml import full_load": "import yaml.full_load",
    "import yaml\nyaml.load_all('', yaml.SafeLoader)": "yaml.load_all",
    "from yaml import UnsafeLoader": "import yaml.UnsafeLoader",
    "import torch\ntorch.load('f')": "torch.load without weights_only=True",
    "import torch\ntorch.load('f', weights_only=False)": "torch.load without weights_only=True",
    "from torch import load\nload('f', **options)": "torch.load without weights_only=True",
    "from torch.serialization import load as l\nl('f')": "torch.serialization.load without weights_only=True",
    "import torch\ntorch.jit.load('f')": "torch.jit.load",
    "import torch\ntorch.hub.load_state_dict_from_url('f')": "torch.hub.load_state_dict_from_url",
    "import torch\ntorch.serialization.add_safe_globals([])": "torch.serialization.add_safe_globals",
    "import numpy as np\nnp.load('f', allow_pickle=True)": "numpy.load without allow_pickle=False",
    "import numpy as np\nnp.load('f')": "numpy.load without allow_pickle=False",
    "import pandas as pd\npd.read_pickle('f')": "pandas.read_pickle",
    "import os\nos.system('ls')": "os.system",
    "from os import popen": "import os.popen",
    "import os\nos.execvp('ls', [])": "os.execvp",
    "import subprocess\nsubprocess.run('ls', shell=True)": "subprocess.run with shell",
    "from subprocess import Popen\nPopen('ls', shell=flag)": "subprocess.Popen with shell",
    "import subprocess as s\ns.check_output('ls', **options)": "subprocess.check_output with shell",
    "import subprocess\nsubprocess.getoutput('ls')": "subprocess.getoutput",
    "import tarfile\ntarfile.open('f').extractall('d')": "extractall without filter='data'",
    "import tarfile\ntarfile.open('f').extractall('d', filter='fully_trusted')": "extractall without filter='data'",
    "import shutil\nshutil.unpack_archive('f')": "unpack_archive without filter='data'",
    "from shutil import unpack_archive\nunpack_archive('f')": "unpack_archive without filter='data'",
    "import urllib.request": "import urllib.request",
    "from urllib.request import urlopen": "import urllib.request.urlopen",
    "import requests": "import requests",
    "import http.client": "import http.client",
    "import socket": "import socket",
    "def f():\n    import gdown": "import gdown",
}
HARMLESS = """
import re, subprocess, tarfile, torch, numpy as np, yaml
re.compile("x"); model.eval(); torch.compile(model); yaml.safe_load(""); session.exec(); code = 1; code.x
torch.load("f", weights_only=True); np.load("f", allow_pickle=False); subprocess.run(["ls"], shell=False)
tarfile.open("f").extractall("d", filter="data")  # not pickle.loads(x)
"""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_run_code_out_of_a_file(path):
    assert findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("source", CAUGHT)
def test_each_kind_is_caught(source):
    assert CAUGHT[source] in findings(source)


def test_what_is_harmless_is_not():
    assert findings(HARMLESS) == []


def ruff(source, filename):
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename", filename, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode in (0, 1), done.stderr
    return set(re.findall(r": ([A-Z]+\d+) ", done.stdout))


@pytest.mark.parametrize("folder", ["art_lbgat", "art_lbgat/engine", "art_lbgat/trainers", "examples", "scripts"])
def test_the_linter_reports_what_can_run_code(folder):
    planted = (
        "import os\nimport pickle\nimport subprocess\nimport tarfile\n\nimport yaml\n\n"
        'pickle.loads(b"")\neval("1")\nexec("")\nyaml.load("", yaml.Loader)\nos.system("ls *")\n'
        'subprocess.run("ls", shell=True)\ntarfile.open("f").extractall("d")\n'
    )
    reported = ruff(planted, f"{folder}/planted.py")
    assert {"S301", "S307", "S102", "S506", "S605", "S602", "S202", "TID251"} <= reported
    assert not {code for code in ruff('"""Fine."""\n', f"{folder}/planted.py") if code.startswith("S")}


def test_the_security_rules_are_on():
    """Read as text: Python 3.10 has no reader of TOML."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lint = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.flake8")]
    select, ignore = (re.search(rf"^{key} = \[(.*?)\]$", lint, re.M | re.S)[1] for key in ("select", "ignore"))
    assert "S" in re.findall(r'"(\w+)"', select)
    assert re.findall(r'"(S\d+)"', ignore) == ["S311"]  # random numbers that are no secrets
    per_file = dict(re.findall(r'^"([^"]+)" = \[(.*)\]', lint, re.M))
    assert [pattern for pattern, codes in per_file.items() if re.search(r'"S\d*"', codes)] == ["tests/**"]
