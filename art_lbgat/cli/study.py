"""``art-lbgat study``, ``demo`` and ``recipes``: recipes x seeds on one data set, as one table and one page."""

from __future__ import annotations

import json
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from art_lbgat.cli.output import markdown, new_file, print_table, refuse_other_things, say, typed
from art_lbgat.cli.train import complete_recipe, find_recipe, read_settings, signals_as_interrupts, write_results

if TYPE_CHECKING:
    import pandas

    from art_lbgat.data import DataSet
    from art_lbgat.recipes import Recipe
    from art_lbgat.study import StudyOptions

Spread = Literal["ci", "std"]
_SPREADS = {"ci": "half of the 95 % interval", "std": "standard deviation"}
_TITLES = {"natural": "natural", "pgd-20": "PGD-20", "autoattack": "AutoAttack"}
_VERSUS = " vs "
_PAIRED = "difference to {} in points [95 % interval], on the same images and seeds"
ARMS = {
    "Natural (guide)": "natural",
    "PGD-AT": "madry",
    "TRADES (6)": "trades6",
    "HAT": "hat",
    "ADR": "adr",
    "BGAT": "bgat",
    "LBGAT": "lbgat",
}
BASELINE = "PGD-AT"  # that the demo compares with
EPS = {"digits": 0.3, "folder": 8 / 255}


def study(
    output: Annotated[Path, typer.Option(help="Folder of the study; given again, only missing runs are run.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Id of a recipe, or a TOML file; repeatable.", autocompletion=complete_recipe),
    ] = None,
    ablation: Annotated[str | None, typer.Option(help="guidance, alpha, guide-depth, ensemble or regularizer.")] = None,
    base: Annotated[str, typer.Option(help="The recipe that the ablation varies.")] = "digits-lbgat",
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    root: Annotated[Path | None, typer.Option(help="Where the data lies; not needed for the digits.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only so many training images.")] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs of every run, milestones in proportion.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="field=value of every recipe; repeatable.")] = None,
    part: Annotated[str, typer.Option(help="What is evaluated: test, or validation to choose settings by.")] = "test",
    n_test: Annotated[int | None, typer.Option(help="Images for natural accuracy and PGD-20; all if left out.")] = None,
    n_autoattack: Annotated[
        int | None, typer.Option(help="Images for AutoAttack; all of the digits, else 100 if left out; 0 for none.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if left out.")] = None,
) -> None:
    """Train and evaluate recipes with several seeds; one table of means, intervals, differences to the first recipe."""
    from art_lbgat.recipes import ablation as vary
    from art_lbgat.study import StudyOptions

    if bool(recipe) == (ablation is not None):
        raise ValueError("recipe: expected either --recipe or --ablation.")
    changes = read_settings(set_ or [])
    found = [find_recipe(name) for name in recipe or []]
    arms = {each.id: each for each in found} if ablation is None else vary(ablation, find_recipe(base))
    if recipe and len(arms) < len(found):
        raise ValueError(f"recipe: expected different ids, got {[each.id for each in found]}.")
    arms = {label: each.override(**changes) for label, each in arms.items()}
    data = next(iter(arms.values())).data
    options = StudyOptions(
        arms, seeds=tuple(range(seeds)), root=root, limit=limit, nb_epochs=nb_epochs, n_test=n_test,
        part=part,  # type: ignore[arg-type]  # checked there
        n_autoattack=100 if n_autoattack is None and data != "digits" else n_autoattack, workers=workers,
    )  # fmt: skip
    tables, saved = _run([options], output, data, "ci", next(iter(arms)))
    if len({(each.eps, each.norm) for each in arms.values()}) > 1:
        say(f"{saved}; no page, since the recipes differ in eps or norm")
        return
    _, pages = _show([options], output, tables, f"Study on {data}")
    say(f"{saved}; open {pages[0]}")


def demo(
    output: Annotated[Path, typer.Option(help="Folder of runs and page; given again, missing runs are run.")] = Path(
        "results/demo"
    ),
    root: Annotated[Path | None, typer.Option(help="Your images: <class>/<image>, or train/ and test/.")] = None,
    image_size: Annotated[int | None, typer.Option(help="With --root: size of images. [default: 32]")] = None,
    eps: Annotated[list[float] | None, typer.Option(help="Linf radius; repeatable. [default: 0.3; 8/255]")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 2,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeatable.")] = None,
    part: Annotated[str, typer.Option(help="What is evaluated: test, or validation to choose settings by.")] = "test",
    guide_ce_weight: Annotated[float | None, typer.Option(help="LBGAT: weight of the guide's cross-entropy.")] = None,
    nb_epochs: Annotated[int | None, typer.Option(help="Epochs of every method.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="Test images for AutoAttack, per seed.")] = 100,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if left out.")] = None,
) -> None:
    """Train a guide, the baselines, BGAT and LBGAT on real digits or your images, evaluate all with AutoAttack."""
    from art_lbgat.study import StudyOptions

    if root is None and image_size is not None:
        raise ValueError(f"image_size: expected it with --root alone, got {image_size}.")
    data = "digits" if root is None else "folder"
    studies = [
        StudyOptions(
            _demo_arms(f"quick-{data}", radius, method, guide_ce_weight, image_size), seeds=tuple(range(seeds)),
            root=root, nb_epochs=nb_epochs, part=part,  # type: ignore[arg-type]  # checked there
            n_autoattack=n_autoattack, workers=workers,
        )
        for radius in eps or [EPS[data]]
    ]  # fmt: skip
    title = "Digits (real 8x8 images)" if root is None else f"Photos in {root.resolve().name}"
    arms = list(studies[0].arms)
    tables, saved = _run(studies, output, f"{title}, Linf", "std", BASELINE if BASELINE in arms else arms[0])
    models, pages = _show(studies, output, tables, title)
    say(f"{saved}; open {' and '.join(map(str, pages))}")
    say(f"to use a model: art-lbgat evaluate {models[-1]}, or predict, report; in Python see docs/models.md")


def _run(
    studies: list[StudyOptions], output: Path, title: str, spread: Spread, baseline: str
) -> tuple[list[pandas.DataFrame], str]:
    """Run studies that differ in eps, save and print them; the table of each, and what was saved."""
    import pandas

    from art_lbgat.study import run_study, summarize

    start = time.perf_counter()

    def report(done: int, total: int, row: Mapping[str, Any]) -> None:
        line = (
            f"[{done:>2}/{total}] {time.perf_counter() - start:4.0f} s  {row['recipe']:<20} eps {row['eps']:.3g} "
            f"seed {row['seed']}: natural {row['natural']:.1%}, PGD-20 {row['pgd-20']:.1%}"
        )
        say(line + (f", AutoAttack {row['autoattack']:.1%}" if "autoattack" in row else ""), err=True)

    with study_directory(output), signals_as_interrupts(f"the same command resumes what is in {output}"):
        tables = [run_study(each, output, report) for each in studies]
    runs, seconds = pandas.concat(tables, ignore_index=True), time.perf_counter() - start
    summary = summarize(runs, baseline=baseline)
    save_study(output, studies[0], runs, summary, seconds, spread, baseline)
    print_study(title, summary, runs, spread, baseline)
    return tables, f"{len(runs)} runs in {seconds:.0f} s; saved in {output}"


def _show(
    studies: list[StudyOptions], output: Path, tables: list[pandas.DataFrame], title: str
) -> tuple[list[Path], list[Path]]:
    """Keep the networks of the first seed and write a page for each study; the directories and the pages."""
    from art_lbgat.report import write_report
    from art_lbgat.study import first_data, study_content

    say("making the page", err=True)
    data, models, pages = first_data(studies[0]), [], []
    for study_options, table in zip(studies, tables, strict=True):
        eps = f"{table['eps'].iloc[0]:.4g}" if len(studies) > 1 else ""
        models += keep_models(study_options, output, table, data, f" eps {eps}" if eps else "")
        pages.append(output / (f"report-eps{eps}.html" if eps else "report.html"))
        content = study_content(study_options, output, table, title=title, commands=[typed()], data=data)
        write_report(pages[-1], content)
    return models, pages


def _demo_arms(
    family: str, eps: float, methods: list[str] | None, guide_ce_weight: float | None, image_size: int | None
) -> dict[str, Recipe]:
    from art_lbgat.checks import check_choice
    from art_lbgat.recipes import RECIPES

    arms = {}
    for name in methods or ARMS:
        changes: dict[str, Any] = {"eps": eps}
        recipe = RECIPES[f"{family}-{ARMS[check_choice(name, 'method', ARMS)]}"]
        if guide_ce_weight is not None and recipe.method == "lbgat":
            changes["guide_ce_weight"] = guide_ce_weight
        if image_size is not None:
            changes["image_size"] = image_size
        arms[name] = recipe.override(**changes)
    return arms


def recipes(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Id or file of a recipe to show in full; all if left out.", autocompletion=complete_recipe),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the recipe to this new TOML file instead.")] = None,
) -> None:
    """List the recipes: id, data, model, objective, eps, passes per step, published natural / AutoAttack, source."""
    from art_lbgat.recipes import RECIPES

    if recipe is None and save is not None:
        raise ValueError("save: expected the id of one recipe beside it.")
    if recipe is None:
        headers = ("id", "data", "model", "objective", "eps", "passes per step", "natural", "AutoAttack", "source")
        title = "Recipes; published accuracies in percent, PGD-20 marked *"
        print_table(title, headers, map(_recipe_cells, RECIPES.values()), left=headers, whole=("id",))
        return
    found = find_recipe(recipe)
    if save is not None:
        new_file(save, "save")
        found.save(save)
        say(f"saved in {save}")
        return
    values = found.as_dict()
    for name, value in {**values, **values["run"], "passes per step": found.cost}.items():
        if name != "run":
            say(f"{name}: {value}")


def _recipe_cells(recipe: Recipe) -> list[str]:
    result, source, natural, robust = recipe.published, recipe.source, "", ""
    if result is not None:
        natural, source = f"{result.natural:.2f}", result.source
        robust = f"{result.autoattack:.2f}" if result.autoattack is not None else f"{result.pgd_20:.2f}*"
    eps = f"{round(recipe.eps * 255)}/255" if abs(recipe.eps * 255 % 1) < 1e-9 else f"{recipe.eps:g}"
    named = [recipe.id, recipe.data, recipe.model, recipe.objective]
    return [*named, eps, str(recipe.cost), natural, robust, source]


@contextmanager
def study_directory(output: Path) -> Iterator[None]:
    """Make the directory of a study; if what is done in it fails before there is a file, it is removed again."""
    made = not output.exists()
    if not (output / "runs").exists():
        refuse_other_things(output, ", or that of a study")
    output.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in (output / "runs", output) if made else ():
            with suppress(OSError):  # not empty, or not there
                each.rmdir()
        raise


def print_study(title: str, summary: pandas.DataFrame, runs: pandas.DataFrame, spread: Spread, baseline: str) -> None:
    """The table of a study on the terminal, and what AutoAttack warned of."""
    for eps, part in summary.groupby("eps", sort=False):
        whole = _texts(part, runs, spread, baseline)
        differences = [name for name in map(str, whole) if name.endswith(_VERSUS + baseline)]
        caption = f"{title}, eps = {eps:.4g}: mean ± {_SPREADS[spread]} over seeds"
        tables = {caption: whole.drop(columns=differences)}
        if differences:  # two narrow tables fit into 80 columns where a wide one would cut names off
            others = part["arm"].ne(baseline).tolist()
            tables[f"{title}: {_PAIRED.format(baseline)}"] = whole[["method", *differences]][others]
        for caption, shown in tables.items():
            headers = [name.removesuffix(_VERSUS + baseline).replace(" (", "\n(") for name in map(str, shown)]
            print_table(caption, headers, shown.to_numpy().tolist(), left=("method",))
    for label in _labels(runs):
        say(label)
    # The same warning with other percentages is one line, with the number of runs that it was raised in.
    flags = Counter(re.sub(r"[\d.]+%", "some %", flag) for flag in runs["flags"] if flag)
    for flag, count in sorted(flags.items()):
        say(f"AutoAttack warns in {count} of {len(runs)} runs (see runs.csv): {flag}")


def _texts(summary: pandas.DataFrame, runs: pandas.DataFrame, spread: Spread, baseline: str) -> pandas.DataFrame:
    """Accuracies, their differences to the baseline and seconds as texts, a column under each heading."""
    import pandas

    from art_lbgat.study import COUNTS, cell

    columns = {"method": summary["arm"].tolist()}
    names = [each for each in _TITLES if f"{each}_mean" in summary]
    for name in names:
        title = f"{_TITLES[name]} % (n={int(runs[COUNTS[name]].max())})"
        columns[title] = list(map(cell, summary[f"{name}_mean"], summary[f"{name}_{spread}"]))
    for name in (each for each in names if f"{each}_diff" in summary):
        ends = summary[[f"{name}_diff{end}" for end in ("", "_low", "_high")]].to_numpy()
        texts = ["" if mean != mean else f"{mean:+.1f} [{low:.1f}, {high:.1f}]" for mean, low, high in ends]
        columns[f"{_TITLES[name]}{_VERSUS}{baseline}"] = texts
    columns["training s"] = [f"{seconds:.0f}" for seconds in summary["train_seconds"]]
    return pandas.DataFrame(columns)


def _labels(runs: pandas.DataFrame) -> list[str]:
    """What makes the numbers other than standard ones on the test set."""
    lines = []
    if "validation" in set(runs["part"]):
        lines.append("Evaluated on the validation part, to choose settings by; these are no test results.")
    chosen = runs.loc[runs["selection"] == "test", "arm"].unique()
    if len(chosen):
        lines.append(f"Epoch chosen on the test set (a reproduction, not a fair result): {', '.join(chosen)}.")
    kinds = sorted({str(kind) for kind in runs.get("autoattack_kind", ()) if kind != "autoattack (standard)"})
    return [*lines, f"AutoAttack is not the standard one: {', '.join(kinds)}."] if kinds else lines


def save_study(
    output: Path, options: StudyOptions, runs: pandas.DataFrame, summary: pandas.DataFrame, seconds: float,
    spread: Spread, baseline: str,
) -> None:  # fmt: skip
    """``runs.csv``, ``summary.csv``, ``table.md`` and ``results.json`` (all of it, with settings and versions)."""
    import art
    import torch

    from art_lbgat import __version__

    masks = [name for name in map(str, runs) if name.endswith("_right")]  # of every image, for results.json alone
    runs.drop(columns=masks).to_csv(output / "runs.csv", index=False)
    summary.to_csv(output / "summary.csv", index=False)
    settings = {name: value for name, value in vars(options).items() if name not in ("arms", "root")}
    versions = {"art_lbgat": __version__, "art": art.__version__, "torch": torch.__version__}
    record = {
        "command": typed(),
        "options": {**settings, "seeds": list(options.seeds)},
        "arms": {arm: options.recipe(arm).as_dict() for arm in options.arms},
        "versions": {**versions, "python": platform.python_version()},
        "seconds": seconds,
        "summary": json.loads(summary.to_json(orient="records")),
        "runs": json.loads(runs.to_json(orient="records")),
    }
    (output / "results.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    parts = []
    for eps, part in summary.groupby("eps", sort=False):
        shown = _texts(part, runs, spread, baseline)
        table = markdown([*map(str, shown)], shown.to_numpy().tolist(), left=("method",))
        said = f"; {_PAIRED.format(baseline)}" if any(_VERSUS in name for name in map(str, shown)) else ""
        parts.append(f"eps = {eps:.4g}, mean ± {_SPREADS[spread]} over seeds{said}\n\n{table}")
    text = "\n".join([*parts, *(f"{line}\n" for line in _labels(runs))])
    (output / "table.md").write_text(text, encoding="utf-8")


def keep_models(
    options: StudyOptions, output: Path, runs: pandas.DataFrame, data: DataSet, suffix: str = ""
) -> list[Path]:
    """Write ``<output>/models/<arm><suffix>`` for each arm, with the first seed's network as training leaves it."""
    from art_lbgat.runs import HISTORY, WEIGHTS, Config, guide_file
    from art_lbgat.study import evaluation_rows, plan_runs

    seed, folder, made = options.seeds[0], output / "runs", []
    root = None if options.root is None else str(options.root)
    for arm, task in plan_runs(options)[1]:
        if task.seed != seed:
            continue
        directory = output / "models" / re.sub(r"[^a-z0-9.]+", "-", f"{arm}{suffix}".lower()).strip("-")
        Config(task.recipe, seed=seed, limit=options.limit, root=root).write_with(data, directory)
        shutil.copyfile(folder / f"{task.key}.safetensors", directory / WEIGHTS)
        shutil.copyfile(folder / f"{task.key}.history.csv", directory / HISTORY)
        guides = [folder / f"{key}.safetensors" for key in task.guides] or [folder / f"{task.key}.guide.safetensors"]
        for index, path in enumerate(guides):
            if path.is_file():
                shutil.copyfile(path, directory / guide_file(index))
        run = runs[(runs["arm"] == arm) & (runs["seed"] == seed)]
        write_results(directory, evaluation_rows(dict(run.iloc[0]), task.recipe.norm))
        made.append(directory)
    return made
