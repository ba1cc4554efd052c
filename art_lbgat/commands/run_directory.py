"""The directory of a training: where its files are, and whether a run may use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_lbgat.commands.plan import Plan, make_plan
from art_lbgat.commands.shared import refuse_other_things
from art_lbgat.files import write_text
from art_lbgat.recipes.files import read_mapping, write_mapping

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run.

    :param path: The directory.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Recipe and run, as TOML."""
        return self.path / "config.toml"

    @property
    def checkpoints(self) -> Path:
        """What an interrupted run goes on from."""
        return self.path / "checkpoints"

    @property
    def history(self) -> Path:
        """A row per epoch."""
        return self.path / "history.csv"

    @property
    def results(self) -> Path:
        """A row per attack; there when the run is finished."""
        return self.path / "results.csv"

    @property
    def table(self) -> Path:
        """The same as Markdown."""
        return self.path / "table.md"

    @property
    def weights(self) -> Path:
        """The weights that are kept."""
        return self.path / "model.safetensors"

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report.html"

    def guide_weights(self, index: int) -> Path:
        """The weights of a guide.

        :param index: Which guide, from 0.
        """
        return self.path / f"guide-{index}.safetensors"

    def guide_history(self, index: int) -> Path:
        """The history of a frozen guide that was trained first.

        :param index: Which guide, from 0.
        """
        return self.path / f"guide-{index}-history.csv"

    def exists(self) -> bool:
        """Whether there is a run in it."""
        return self.config.is_file()

    def plan(self) -> Plan:
        """What its run was, or is, to be."""
        return make_plan(str(self.config))

    def facts(self) -> dict[str, Any]:
        """The table ``run`` of its configuration."""
        return dict(read_mapping(self.config).get("run", {}))

    def write_plan(self, plan: Plan, facts: dict[str, Any]) -> None:
        """Write the configuration down.

        :param plan: The plan.
        :param facts: What else is noted of the run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_mapping(self.config, plan.as_toml(facts))

    def write_results(self, table: pandas.DataFrame) -> None:
        """Write the table of the evaluation; the run counts as finished then.

        :param table: The table of ``evaluate``.
        """
        write_text(self.table, markdown(table))
        write_text(self.results, table.to_csv(index=False))

    def check_free(self, plan: Plan, *, resume: bool) -> None:
        """Refuse to mix this run with anything else.

        A run of the same plan that was not finished goes on by itself.

        :param plan: What is to be run.
        :param resume: Whether it was asked for to go on: then what differs is left to the checkpoint to judge.
        :raises FileNotFoundError: ``resume`` where there is no run.
        :raises ValueError: The directory is none, holds other things, another run or a finished one.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"output: expected a directory, got the file {self.path}.")
        if self.exists():
            self._check_run(plan, resume=resume)
            return
        refuse_other_things(self.path)
        if resume:
            raise FileNotFoundError(f"resume: there is no run in {self.path}; expected the --output of an earlier one.")

    def _check_run(self, plan: Plan, *, resume: bool) -> None:
        if resume:
            return
        changed = plan.differences_from(read_mapping(self.config))
        if changed:
            raise ValueError(
                f"output: {self.path} holds a run with other settings ({'; '.join(changed)}); expected another "
                "directory, or --resume for what a run that goes on may change, such as nb_epochs."
            )
        if self.results.exists():
            raise ValueError(
                f"output: {self.path} holds a finished run of these settings; expected another directory, or --resume "
                "to judge it again (with a larger nb_epochs: to go on with it)."
            )


def markdown(table: pandas.DataFrame) -> str:
    """Accuracies in percent with their 95 % intervals, a line per attack.

    :param table: The table of ``evaluate``.
    """
    named = "model" in table
    lines = [
        f"|{' model |' if named else ''} attack | eps | n | accuracy % | 95 % interval | flags |",
        f"|{' --- |' if named else ''} --- | ---: | ---: | ---: | ---: | --- |",
        *(f"| {' | '.join(cells)} |" for cells in result_cells(table)),
    ]
    return "\n".join(lines) + "\n"


def result_cells(table: pandas.DataFrame) -> list[list[str]]:
    """Attack, eps, n, accuracy, interval and flags of each row, as they are shown.

    :param table: The table of ``evaluate``.
    """
    return [
        [
            *([str(row["model"])] if "model" in row else []),
            str(row["attack"]),
            f"{row['eps']:.4g}",
            str(row["n"]),
            f"{100 * row['accuracy']:.2f}",
            f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
            "" if row["flags"] != row["flags"] else str(row["flags"]),
        ]
        for row in table.to_dict("records")
    ]
