"""Use each command of ``art-lbgat`` wrongly, and print what it says and its exit code as the table of docs/cli.md.

python scripts/cli_errors.py
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a machine without a GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")

from typer.testing import CliRunner

from art_lbgat.cli.main import app

# Where a run is needed it is the finished one in RUN; BUSY is a directory of other things, NEW does not exist.
COMMANDS = """
art-lbgat
art-lbgat trian
art-lbgat train
art-lbgat train digits-lbgat
art-lbgat train digits-lbga --output NEW
art-lbgat train mine.toml --output NEW
art-lbgat train BUSY/broken.toml --output NEW
art-lbgat train digits-lbgat --output NEW --set eps
art-lbgat train digits-lbgat --output NEW --set epz=0.1
art-lbgat train digits-lbgat --output NEW --set eps=big
art-lbgat train digits-lbgat --output NEW --set seed=1
art-lbgat train digits-lbgat --output NEW --set precision=fp8
art-lbgat train digits-lbgat --output NEW --device cuda
art-lbgat train digits-lbgat --output NEW --nb-epochs 0
art-lbgat train digits-lbgat --output NEW --n-test 0
art-lbgat train folder-lbgat --output NEW
art-lbgat train digits-lbgat --output NEW --limit 5
art-lbgat train digits-lbgat --output NEW --tracker tensorbord
art-lbgat train digits-lbgat --output NEW --guide-weights NEW/guide.safetensors
art-lbgat train digits-lbgat --output NEW --quiet --json-lines
art-lbgat train digits-lbgat --output NEW --resume
art-lbgat train digits-lbgat --output BUSY
art-lbgat train digits-lbgat --output BUSY/broken.toml
art-lbgat train digits-lbgat --set nb_epochs=1 --output RUN
art-lbgat train digits-lbgat --set nb_epochs=1 --set eps=0.2 --output RUN
art-lbgat train digits-lbgat --set nb_epochs=1 --set eps=0.2 --output RUN --resume
art-lbgat train cifar10-small-lbgat --output NEW
art-lbgat train cifar10-small-lbgat --output NEW --root BUSY
art-lbgat evaluate
art-lbgat evaluate NEW/model.safetensors
art-lbgat evaluate BUSY
art-lbgat evaluate Cui2020Learnable_34_21
art-lbgat evaluate nothing:build --data digits --eps 0.1
art-lbgat evaluate math:build --data digits --eps 0.1
art-lbgat evaluate builtins:dict --data digits --eps 0.1
art-lbgat evaluate RUN --attack pdg-20
art-lbgat evaluate RUN --eps -1
art-lbgat evaluate RUN --csv RUN/results.csv
art-lbgat evaluate RUN --device cuda
art-lbgat benchmark NEW/model.safetensors
art-lbgat benchmark RUN --dataset cifar11
art-lbgat leaderboard cifar10 L1
art-lbgat compare NEW/result.json
art-lbgat compare Cui2020Learnable
art-lbgat report NEW
art-lbgat report RUN --baseline NEW
art-lbgat report RUN --baseline RUN
art-lbgat predict RUN photo.jpg
art-lbgat recipes digits-lbga
art-lbgat recipes digits-lbgat --save BUSY/broken.toml
art-lbgat study --output NEW
art-lbgat study --recipe digits-lbgat --set eps --output NEW
art-lbgat study --recipe digits-madry --output BUSY
art-lbgat demo --method BGATT --output NEW
art-lbgat demo --root NEW/photos --workers 1 --output NEW
art-lbgat demo --image-size 64 --output NEW
art-lbgat doctor --fast
""".strip().splitlines()


class Said(NamedTuple):
    """What a wrong use gave.

    :param command: As typed.
    :param message: What was printed, on one line.
    :param code: The exit code.
    """

    command: str
    message: str
    code: int


def prepare(folder: Path) -> dict[str, str]:
    """The directories that the commands name.

    :param folder: An empty one.
    """
    busy, run = folder / "busy", folder / "run"
    busy.mkdir()
    (busy / "broken.toml").write_text("eps = \n", encoding="utf-8")
    command = [
        "train",
        "digits-lbgat",
        "--set",
        "nb_epochs=1",
        "--n-test",
        "20",
        "--no-report",
        "-q",
        "--output",
        str(run),
    ]
    done = CliRunner().invoke(app, command)
    if done.exit_code:
        raise RuntimeError(done.output)
    return {"BUSY": str(busy), "RUN": str(run), "NEW": str(folder / "new")}


def ask(command: str, places: dict[str, str]) -> Said:
    """Run one command in this process.

    :param command: One of :data:`COMMANDS`.
    :param places: What the words in capitals stand for.
    """
    typed = command
    for name, path in places.items():
        typed = typed.replace(name, path)
    done = CliRunner().invoke(app, shlex.split(typed)[1:], env={"COLUMNS": "500", "TERMINAL_WIDTH": "500"})
    return Said(command, message(done.output, places), done.exit_code)


def message(output: str, places: dict[str, str]) -> str:
    """The errors and warnings in what was printed, without frames, the folder that it ran in, and what takes pages."""
    text = output
    for name, path in places.items():
        text = text.replace(path, name)
    lines = [line.strip("│╭╮╰╯─ ") for line in text.splitlines()]
    kept = [line for line in lines if line.startswith(("error", "warning", "interrupted", "No such", "Missing", "Got"))]
    if not kept:
        kept = ["the help"] if "Usage" in text else ["nothing"]
    return re.sub(r"\s+", " ", " ".join(kept))


def interrupted(folder: Path) -> Said:
    """A training that is sent SIGTERM after its first epoch, as a process of its own.

    :param folder: Where it writes.
    """
    command = "art-lbgat train digits-lbgat --output NEW"
    output = folder / "interrupted"
    arguments = [
        *shlex.split(command)[1:-1],
        str(output),
        "--set",
        "nb_epochs=2000",
        "--set",
        "milestones=[]",
        "--quiet",
    ]
    process = subprocess.Popen(  # noqa: S603 (its own command)
        [sys.executable, "-m", "art_lbgat", *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while not (output / "history.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    said = re.sub(r"in epoch \d+ of \d+ after \d+", "in epoch 7 of 25 after 3", message(errors, {"NEW": str(output)}))
    return Said(f"{command}, then kill -TERM", said, process.returncode)


def table(rows: list[Said]) -> str:
    """The table in Markdown."""
    lines = ["| command | message | exit code |", "| --- | --- | ---: |"]
    for row in rows:
        text = row.message.replace("|", "\\|")
        lines.append(f"| `{row.command}` | {text} | {row.code} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        places = prepare(Path(name))
        print(table([*(ask(command, places) for command in COMMANDS), interrupted(Path(name))]))


if __name__ == "__main__":
    main()
