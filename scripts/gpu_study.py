"""CIFAR-10 on one CUDA GPU in minutes, without a network: how fast a step is, and which method earns what.

    python scripts/gpu_study.py cifar10.zip --output results/gpu --minutes 12
    python scripts/gpu_study.py cifar10.zip --dry-run --output results/dry     # every line, on a CPU, in two minutes

The zip holds ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``. Packages that are missing are installed from a folder
of wheels (``--wheels``, which ``make wheels`` fills; torch and torchvision are the machine's) into one of the output.

Each part is in ``results.json`` when it ends: the step table, which decides precision, compilation and epochs; method
by method a training in a slice of the time, its judgement and the paired differences. After ``--minutes`` the part that
runs is stopped; the same command again goes on with it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

GUIDE, BASELINES = "natural guide", ("PGD-AT", "TRADES (6)")
# In the order of interest: a recipe of the first family that has it, and what is changed. Others are left out.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    GUIDE: ("natural", {"eps_warmup_epochs": 0}),
    "LBGAT, MSE + CE": ("lbgat", {"guidance": "mse+ce"}),
    "TRADES (6)": ("trades6", {}),
    "PGD-AT": ("madry", {}),
    "BGAT, MSE + CE": ("bgat", {"guidance": "mse+ce"}),
    "HAT": ("hat", {}),
    "LBGAT-IKL": ("lbgat-ikl", {}),
    "ADR": ("adr", {}),
}
FAMILIES = ("quick-cifar10", "cifar10-small")  # the first as it is, the second made larger
MODEL, TABLE_BATCHES, TABLE_SECONDS = "resnet-18", (128, 512), 60.0
LARGER: dict[str, Any] = {  # epochs are scaled to the slice, and what counts them in proportion
    "batch_size": 128, "nb_epochs": 100, "milestones": (60, 85), "learning_rate": 0.1, "nesterov": True, "max_iter": 3,
    "weight_decay": 5e-4, "eps_step": 16 / 765, "eps_warmup_epochs": 50, "max_grad_norm": 5.0, "ema_decay": 0.999,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "exact": {},
    "bf16": {"precision": "bf16"},
    "bf16 + channels_last": {"precision": "bf16", "channels_last": True},
    "bf16 + channels_last + compile": {"precision": "bf16", "channels_last": True, "compile": True},
}
N_AUTOATTACK, JUDGE_PASSES = 1000, 5000  # passes of standard AutoAttack, for an image of a net that is half robust
SLICES, SHORTEST, CLOSING = 3, 60.0, 8.0  # trainings in one call, the fewest seconds of one, those to write the last


def install(wheels: Path | None, output: Path) -> None:
    """Install each wheel whose distribution is missing into a folder of the output, which is then imported from."""
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(output / "packages")]
    given = sorted(wheels.glob("*.whl")) if wheels is not None else ()
    missing = [str(each) for each in given if not any(importlib.metadata.distributions(name=each.name.split("-")[0]))]
    if missing:
        options = ["--quiet", "--no-index", "--no-deps", "--target", str(output / "packages")]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *missing], check=True)  # noqa: S603
        importlib.invalidate_caches()


def wheel_list() -> Iterator[str]:
    """``name==version`` of everything that the package needs, except torch and what comes with it."""
    left_out, queue = ("torch", "torchvision"), ["art-lbgat"]
    for name in queue:
        for line in importlib.metadata.requires(name) or ():
            needed = re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower()
            there = any(importlib.metadata.distributions(name=needed))  # or for another Python
            if there and needed not in {*left_out, *queue} and "extra ==" not in line:
                queue.append(needed)
                yield f"{needed}=={importlib.metadata.version(needed)}"


class Study:
    """What was found, in ``results.json``, and the clock."""

    def __init__(self, output: Path, end: float, *, dry: bool) -> None:
        import torch

        self.output, self.dry, self._end = output, dry, end
        self.device = "cuda" if torch.cuda.is_available() and not dry else "cpu"
        self.card = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        self.found: dict[str, Any] = {"table": {}, "runs": {}, "accuracies": [], "differences": [], "notes": {}}
        with suppress(FileNotFoundError):
            self.found |= {**json.loads((output / "results.json").read_text(encoding="utf-8")), "notes": {}}

    def left(self) -> float:
        """Seconds in which something may run."""
        return self._end - CLOSING - time.monotonic()

    def save(self) -> None:
        """Write what was found, whole."""
        from art_lbgat.files import write_text

        write_text(self.output / "results.json", json.dumps(self.found, indent=1) + "\n")

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Ends what runs inside when the time is over: a training with a checkpoint, anything else as it is."""
        from art_lbgat.engine.signals import Interrupted

        def over(*_: Any) -> None:
            raise Interrupted("the time is over")

        before = signal.signal(signal.SIGTERM, over)  # a training has a handler of its own
        (timer := threading.Timer(max(self.left(), 0.1), os.kill, (os.getpid(), signal.SIGTERM))).start()
        try:
            yield
        finally:
            timer.cancel()
            signal.signal(signal.SIGTERM, before)


def decode(source: Path, target: Path, most: int | None) -> None:
    """The images of the zip as bytes in one file of arrays, at most so many of each class and part."""
    import numpy as np
    from PIL import Image

    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(source) as archive, ThreadPoolExecutor() as pool:
        files = [name for name in sorted(archive.namelist()) if name.lower().endswith((".jpg", ".jpeg"))]
        places = {name: PurePosixPath(name).parts[-3:-1] for name in files}
        classes = sorted({place[-1] for place in places.values() if len(place) == 2})
        for part in ("train", "test"):
            chosen = [[name for name in files if places[name] == (part, label)][:most] for label in classes]
            if not chosen or not all(chosen):
                raise ValueError(f"data: expected {part}/<class>/*.jpg for each class {classes} in {source}.")
            blobs = [BytesIO(archive.read(name)) for names in chosen for name in names]
            images = pool.map(lambda blob: np.asarray(Image.open(blob, formats=("JPEG",)).convert("RGB")), blobs)
            arrays[f"x_{part}"] = np.stack(list(images))
            arrays[f"y_{part}"] = np.repeat(np.arange(len(classes)), [len(names) for names in chosen])
    np.savez(target.with_suffix(".new.npz"), **arrays)
    target.with_suffix(".new.npz").replace(target)


def step_table(study: Study) -> None:
    """Seconds of a step of LBGAT + TRADES (a=0), K = 10: ours in each way, the authors' procedure, the floor."""
    import torch

    from qa.benchmarks.contestants import Task, authors, floor, ours, trainer
    from qa.benchmarks.timing import measure

    study.found["table"] = {n: row for n, row in study.found["table"].items() if row["card"] == study.card}
    torch._dynamo.config.recompile_limit = 64  # the graphs of all are kept side by side
    until, sizes = time.monotonic() + TABLE_SECONDS, (4, 8) if study.dry else TABLE_BATCHES
    for compiled in (False,) if study.dry else (False, True):  # compilation last, since it takes longest
        for batch in sizes:
            k, steps = (1, 1) if study.dry else (10, 1024 // batch)
            task = Task("digits-cnn" if study.dry else MODEL, batch, 0.0, k, steps, study.device)
            cost: Any = trainer(task).cost
            new = {"passes": cost.student + cost.guide, "seconds": {}, "epoch": {}, "warm-up": {}, "failed": {}}
            row = study.found["table"].setdefault(str(batch), {"card": study.card, **new})
            ways = {name: way for name, way in RUNS.items() if name not in row["seconds"]}
            contestants = {name: ours(task, **way) for name, way in ways.items() if ("compile" in way) == compiled}
            if contestants and not compiled:
                contestants |= {"authors": authors(task), "floor": floor(task)}
            rounds = measure(contestants, 3, device=torch.device(study.device), deadline=until)
            for name in (each for each in contestants if each in rounds.seconds):
                inside = f"{name}: epoch" if name in RUNS else name  # without what a call of fit does before and after
                row["seconds"][name], row["warm-up"][name] = rounds.time(name, steps).median, rounds.warm_up(name)
                row["epoch"][name] = rounds.time(inside, steps).median
            row["failed"] |= rounds.failed
            study.save()


def fastest(study: Study, seconds: float, most: int) -> tuple[str, float, float]:
    """What does most in these seconds, in batches of at most so many; its warm-up; its seconds per pass and image."""
    rows = {int(batch): row for batch, row in study.found["table"].items() if row["seconds"]}
    row = rows[batch := max((each for each in rows if each <= most), default=min(rows))]
    steps = {name: (seconds - row["warm-up"][name]) / row["epoch"][name] for name in RUNS if name in row["seconds"]}
    best = max(steps, key=lambda name: steps[name])
    return best, row["warm-up"][best], row["epoch"][best] / batch / row["passes"]


def find_recipe(study: Study, arm: str, run: dict[str, Any]) -> Any:
    """The recipe of an arm; None, and a note, where the package does not have what it takes."""
    from art_lbgat.recipes import RECIPES

    name, changes = ARMS[arm]
    found = [RECIPES[f"{family}-{name}"] for family in FAMILIES if f"{family}-{name}" in RECIPES]
    if not found:
        study.found["notes"][arm] = f"left out, there is no recipe {FAMILIES[-1]}-{name}"
        return None
    larger = LARGER if found[0].id.startswith(FAMILIES[-1]) else {}
    model, toy = ("small-cnn", {"max_iter": 1, "batch_size": 16}) if study.dry else (MODEL, {})
    own = {"model": model, "guides": (model,) * len(found[0].guides), "checkpoint_every": "5 minutes", **toy}
    return found[0].override(**larger | changes | run | own)


def run_arm(study: Study, arm: str, seed: int, data: Any, seconds: float) -> None:
    """Train, or go on with it, and judge."""
    from art_lbgat.weights import load_weights, save_weights

    key = f"{arm}, seed {seed}"
    folder, guide = (study.output / re.sub(r"\W+", "-", each) for each in (key, f"{GUIDE}, seed {seed}"))
    folder.mkdir(exist_ok=True)
    run = study.found["runs"].setdefault(key, {"arm": arm, "seed": seed})
    if "epochs" not in run:  # the plan of its first call, which a later one keeps
        plan = find_recipe(study, arm, {})
        run["way"], warm_up, of_a_pass = fastest(study, seconds, plan.batch_size)
        epoch = (plan.cost.student + plan.cost.guide) * len(data.train_images) * of_a_pass
        run["epochs"] = 1 if study.dry else max(1, int((seconds - warm_up) / epoch))
        study.save()
    recipe = find_recipe(study, arm, RUNS[run["way"]]).scaled(run["epochs"])
    options: dict[str, Any] = {"device_type": None if study.device == "cuda" else "cpu"}
    if recipe.guides and recipe.method != "lbgat":
        options["guide_weights"] = [guide / "model.safetensors"] * len(recipe.guides)
    experiment = recipe.build(data=data, seed=seed, verbose=False, checkpoint_dir=folder / "checkpoints", **options)
    if (folder / "model.safetensors").is_file():
        load_weights(experiment.classifier.model, folder / "model.safetensors")
    else:
        experiment.fit()
        run["epoch_seconds"], run["card"] = experiment.trainer.history["seconds"].tolist(), study.card
        for number, learned in enumerate(experiment.guides if recipe.method == "lbgat" else ()):
            save_weights(learned.model, folder / f"guide-{number}.safetensors")
        save_weights(experiment.classifier.model, folder / "model.safetensors")
        study.save()
        shutil.rmtree(folder / "checkpoints")
    print(f"{key}: {run['epochs']} epochs in {sum(run['epoch_seconds']):.0f} s", flush=True)
    run |= judge(study, experiment, folder, autoattack=arm != GUIDE)


def judge(study: Study, experiment: Any, folder: Path, *, autoattack: bool) -> dict[str, Any]:
    """Which test images are right: naturally all; under standard AutoAttack the first, as many of each class."""
    import torch

    from art_lbgat.classifier import TensorView
    from art_lbgat.data import balanced_order
    from art_lbgat.evaluation import auto_attack

    classifier, (x, y) = experiment.classifier, experiment.data.test
    x, y = x[order := balanced_order(y)], y[order]
    masks, found = {"natural_right": classifier.predict(x, batch_size=500).argmax(axis=1) == y}, {}
    if autoattack:
        x, y = (torch.from_numpy(each[: 4 if study.dry else N_AUTOATTACK]) for each in (x, y))
        result = auto_attack(TensorView(classifier), x, y, experiment.recipe.eps, state_path=folder / "autoattack")
        masks["robust_right"] = result.robust.numpy()
        found = {"flags": list(result.flags.values()), "judge_seconds": sum(result.seconds.values())}
    return {**found, **{name: "".join("01"[int(each)] for each in mask) for name, mask in masks.items()}}


def arms(study: Study, data: Any, seeds: int) -> None:
    """Every arm with every seed, in their order, as far as the time goes."""
    batch, row = next((int(batch), row) for batch, row in study.found["table"].items() if "exact" in row["seconds"])
    guess = row["epoch"]["exact"] / batch / row["passes"] * JUDGE_PASSES * N_AUTOATTACK
    for seed in range(seeds):
        for arm in ARMS:
            run = study.found["runs"].get(f"{arm}, seed {seed}", {})
            if "natural_right" in run or find_recipe(study, arm, {}) is None:
                continue
            judged = max(run.get("judge_seconds", 0.0) for run in [{}, *study.found["runs"].values()]) or guess
            if arm == GUIDE:
                seconds = study.left() / 12
            else:  # the same for every arm, whichever call it is in
                count = max(1, min(SLICES, int(study.left() / (judged + SHORTEST))))
                seconds = study.found.setdefault("slice", max(SHORTEST, study.left() / count - judged))
            run_arm(study, arm, seed, data, seconds)
            compare(study)


def compare(study: Study) -> None:
    """Accuracies, and the paired differences to the baselines, on the images and seeds that both have."""
    import numpy as np

    from art_lbgat.evaluation import paired_difference

    study.found["accuracies"], study.found["differences"] = [], []
    for kind in ("natural", "robust"):
        masks: dict[str, dict[int, Any]] = {arm: {} for arm in ARMS}
        for run in (each for each in study.found["runs"].values() if f"{kind}_right" in each):
            masks[run["arm"]][run["seed"]] = np.array(list(run[f"{kind}_right"])) == "1"
        for arm, own in masks.items():
            if own:
                m, name = np.stack(list(own.values())), {"arm": arm, "kind": kind}
                study.found["accuracies"].append({**name, "value": m.mean(), "seeds": len(m), "n": m.shape[1]})
            for base in (each for each in BASELINES if each != arm):
                if both := sorted(own.keys() & masks[base].keys()):
                    found = paired_difference(*(np.stack([each[seed] for seed in both]) for each in (own, masks[base])))
                    row = {"arm": arm, "to": base, "kind": kind, **found._asdict(), "real": found.real}
                    study.found["differences"].append(row)
    study.save()


def show(study: Study) -> None:
    """The tables, as Markdown."""
    from art_lbgat.cli.output import markdown

    heads, rows = ("card", "batch", "way", "ms per step", "authors / this"), []
    for batch, row in study.found["table"].items():
        authors = row["seconds"].get("authors", float("nan"))
        for name, seconds in row["seconds"].items():
            rows.append((row["card"], batch, name, f"{1000 * seconds:.1f}", f"{authors / seconds:.2f}"))
    print("", markdown(heads, rows, ("card", "way")), sep="\n")
    for found in filter(None, (study.found["accuracies"], study.found["differences"])):
        lines = [[f"{100 * v:.1f}" if isinstance(v, float) else str(v) for v in row.values()] for row in found]
        print(markdown([*found[0]], lines, left=("arm", "to", "kind")))
    print(
        "In percent and points; robust: standard AutoAttack. The images were JPEG: these are no leaderboard's numbers."
    )
    print(*(f"{arm}: {note}" for arm, note in study.found["notes"].items()), sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """See the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the zip of JPEG files")
    parser.add_argument("--output", type=Path, default=Path("results/gpu"))
    parser.add_argument("--wheels", type=Path, help="a folder of wheels for what is missing")
    parser.add_argument("--minutes", type=float, default=12.0, help="after which nothing runs any more")
    parser.add_argument("--seeds", type=int, default=1, help="the arms again with so many seeds, as time allows")
    parser.add_argument("--dry-run", action="store_true", help="toy size, on the CPU")
    given = parser.parse_args(arguments)
    if not given.data.is_file():
        parser.error(f"data: expected the zip of JPEG files, got {given.data}")
    end = time.monotonic() + 60 * given.minutes
    given.output.mkdir(parents=True, exist_ok=True)
    install(given.wheels, given.output)
    study = Study(given.output, end, dry=given.dry_run)
    if study.device == "cpu" and not study.dry:
        parser.error("no CUDA device; --dry-run goes through the same lines at toy size on the CPU")
    from art_lbgat.data import load_data
    from art_lbgat.engine.signals import Interrupted

    try:
        with study.clock():
            if not (arrays := given.output / "data.npz").is_file():
                decode(given.data, arrays, 6 if study.dry else None)
            data = load_data("npz", arrays, validation=0.2 if study.dry else 0.02)
            step_table(study)
            arms(study, data, given.seeds)
    except Interrupted:
        print("the time is over; the same command goes on with what is missing", flush=True)
    study.save()
    show(study)


if __name__ == "__main__":
    main()
