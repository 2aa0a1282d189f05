"""Experiments and runs: records of the store, the same for every client."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from .artifacts import check_path
from .faults import Conflict, Invalid, NotFound
from .metrics import Metrics
from .records import now
from .store import Store, encode

ORIGIN = "ExperimentRun"  # the first part of the paths of a run's artifacts
LOG_FILE = "user_logs/std_log.txt"  # what the run's process prints, among its artifacts
TERMINAL = frozenset({"Completed", "Failed", "Canceled"})
INTERRUPTED = (
    "The local workspace ended before the run did: a run cannot outlive it. Submit the run again, "
    "and keep a process that uses the workspace alive until the run has ended."
)

# The id of the data asset that Azure registers for an output of a job.
OUTPUT_ASSET = "azureml://locations/local/data/azureml_{run}_output_data_{output}/versions/1"
OUTPUT_ASSET_ID = re.compile(
    re.escape(OUTPUT_ASSET).replace(r"\{run\}", "(.+)").replace(r"\{output\}", "(.+)")
)

T = TypeVar("T")
Tags = dict[str, str | None]


@dataclass(frozen=True)
class JobInput:
    """Artifacts that a job reads.

    Attributes
    ----------
    artifacts : tuple of str
        Paths of files, or of folders with all their files.
    root : str
        The common folder of the artifacts: paths in the input's folder are relative to it.
    is_file : bool
        The job gets the path of the input's one file, instead of the path of its folder.
    is_copied : bool
        The job gets copies, which it may change; else links to the files of the store.
    """

    artifacts: tuple[str, ...]
    root: str
    is_file: bool = False
    is_copied: bool = False


@dataclass(frozen=True)
class OutputRules:
    """How the folder of an output is uploaded.

    Attributes
    ----------
    source : str
        A path below the working directory that leads to the folder as well; empty for none.
    patterns : tuple of str
        Patterns of `fnmatch` for the files that are uploaded; all, if there is none.
    overwrites : bool
        Files that are there already are replaced; else the run fails.
    needs_success : bool
        The folder is uploaded only if the process has succeeded.
    """

    source: str = ""
    patterns: tuple[str, ...] = ()
    overwrites: bool = True
    needs_success: bool = False


@dataclass(frozen=True)
class Job:
    """The job that the engine executes for a run.

    In `command` and `variables`, ``${{inputs.NAME}}`` and ``${{outputs.NAME}}`` stand for paths.

    Attributes
    ----------
    command : tuple of str
        The program and its arguments; ``python`` is the interpreter of the control plane.
    code : str
        The id (``name:version``) of the code asset that fills the working directory, or empty.
    variables : dict of str to str
        Environment variables of the process.
    inputs : dict of str to JobInput
    outputs : dict of str to str
        By the name of an output, the path of artifacts that its folder is uploaded to.
    output_rules : dict of str to OutputRules
        By the name of an output.
    last_step : tuple of str
        A command that is run after the uploads, if the process has succeeded; empty for none.
    max_seconds : float or None
        The process is killed after this time.
    """

    command: tuple[str, ...]
    code: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, JobInput] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    output_rules: dict[str, OutputRules] = field(default_factory=dict)
    last_step: tuple[str, ...] = ()
    max_seconds: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A name under which runs are collected.

    Attributes
    ----------
    archived : str
        When the experiment was archived, in ISO 8601; empty if it is active. The names of active
        experiments are unique.
    """

    id: str
    name: str
    created: str
    description: str = ""
    archived: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One execution of a training script, or one interactive logging session.

    Attributes
    ----------
    experiment : str
        The id of its experiment.
    number : int
        Counted from 1 in each experiment.
    parent, root : str
        Ids of runs; `root` is the run's own id where there is no parent.
    status : str
        ``NotStarted``, ``Queued``, ``Preparing``, ``Running``, ``Finalizing``,
        ``CancelRequested``, or one of `TERMINAL`.
    kind : str
        ``script`` for runs of the job engine; ``batch`` for a batch job, whose one child run, of
        kind ``step``, is of the job engine; ``interactive`` for the others.
    error : dict or None
        ``code`` and ``message``.
    warnings : tuple of str
        Options that have another effect here than on Azure.
    other : dict of dict
        Fields that only one API has, under its name (``v1``, ``v2``, ``mlflow``), as they were
        sent.
    """

    id: str
    experiment: str
    number: int
    root: str
    created: str
    parent: str = ""
    status: str = "NotStarted"
    kind: str = "interactive"
    name: str = ""
    description: str = ""
    target: str = ""
    script: str = ""
    started: str = ""
    ended: str = ""
    tags: Tags = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    error: dict[str, str] | None = None
    warnings: tuple[str, ...] = ()
    job: Job | None = None
    other: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def container(self) -> str:
        """The second part of the paths of the run's artifacts, Azure's "data container"."""
        return f"dcid.{self.id}"

    @property
    def artifacts(self) -> str:
        """The path of the folder of the run's artifacts."""
        return f"{ORIGIN}/{self.container}"

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL


class Runs:
    """The experiments and runs of a store.

    Parameters
    ----------
    store : Store
        Holds the records and the artifacts of all runs.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.metrics = Metrics(store)
        self._select = store.database.rows

    def _records(self, kind: type[T], query: str, *values: object) -> list[T]:
        return [msgspec.json.decode(text, type=kind) for (text,) in self._select(query, *values)]

    # Experiments.

    def experiments(self) -> list[Experiment]:
        """All experiments, the newest first."""
        return self._records(Experiment, "SELECT document FROM experiment ORDER BY position DESC")

    def find_experiment(self, name: str) -> Experiment | None:
        """The active experiment of a name, or None."""
        query = "SELECT document FROM experiment WHERE name = ?"
        found = self._records(Experiment, query, name)
        return next((each for each in found if not each.archived), None)

    def get_experiment(self, experiment_id: str) -> Experiment:
        query = "SELECT document FROM experiment WHERE id = ?"
        found = self._records(Experiment, query, experiment_id)
        if not found:
            raise NotFound("experiment", experiment_id)
        return found[0]

    def create_experiment(self, name: str) -> Experiment:
        """The active experiment of a name; created if there is none."""
        with self.store.transaction() as database:
            found = self.find_experiment(name)
            if found is not None:
                return found
            created = Experiment(str(uuid.uuid4()), name, now())
            database.execute(
                "INSERT INTO experiment (id, name, document) VALUES (?, ?, ?)",
                (created.id, name, encode(created)),
            )
        return created

    def change_experiment(
        self, experiment_id: str, function: Callable[[Experiment], Experiment]
    ) -> Experiment:
        """Replace an experiment by ``function(experiment)``, in one transaction.

        Raises
        ------
        Conflict
            If it would be the second active experiment of its name.
        """
        with self.store.transaction() as database:
            changed = function(self.get_experiment(experiment_id))
            twin = self.find_experiment(changed.name)
            if not changed.archived and twin is not None and twin.id != changed.id:
                raise Conflict("experiment", f"Experiment {changed.name} exists already.")
            database.execute(
                "UPDATE experiment SET document = ? WHERE id = ?",
                (encode(changed), experiment_id),
            )
        return changed

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment without runs.

        Raises
        ------
        Conflict
            If it has runs.
        """
        with self.store.transaction() as database:
            experiment = self.get_experiment(experiment_id)
            if self.select_runs(experiment.id):
                raise Conflict(
                    "experiment",
                    f"Experiment {experiment.name} has runs: only empty experiments can be "
                    "deleted. Archive it instead.",
                )
            database.execute("DELETE FROM experiment WHERE id = ?", (experiment_id,))

    # Runs.

    def select_runs(self, experiment_id: str | None = None) -> list[Run]:
        """The runs of an experiment, or of all experiments, the newest first."""
        query = (
            "SELECT document FROM run WHERE experiment = coalesce(?, experiment)"
            " ORDER BY position DESC"
        )
        return self._records(Run, query, experiment_id)

    def search(
        self, text: str = "", before: int | None = None, limit: int = 100
    ) -> list[tuple[int, str, Run]]:
        """(position, name of the experiment, run) of the latest runs, the newest first.

        Parameters
        ----------
        text : str
            Only runs that have it in their id, name or status, or in their experiment's name;
            upper and lower case of ASCII letters are the same.
        before : int, optional
            Only runs of lower positions: where an earlier search ended.
        """
        own = [f"json_extract(run.document, '$.{field}')" for field in ("name", "status")]
        fields = ["experiment.name", "run.id", *own]
        found = " OR ".join(f"instr(lower({each}), lower(?1))" for each in fields)
        rows = self._select(
            "SELECT run.position, experiment.name, run.document FROM run"
            " JOIN experiment ON experiment.id = run.experiment"
            f" WHERE run.position < coalesce(?2, run.position + 1) AND ({found})"
            " ORDER BY run.position DESC LIMIT ?3",
            text,
            before,
            limit,
        )
        return [
            (position, name, msgspec.json.decode(document, type=Run))
            for position, name, document in rows
        ]

    def count(self) -> int:
        """The number of runs."""
        return self._select("SELECT count(*) FROM run")[0][0]

    def children(self, run_id: str) -> list[Run]:
        """The direct children of a run, the newest first."""
        query = "SELECT document FROM run WHERE parent = ? ORDER BY position DESC"
        return self._records(Run, query, run_id)

    def find(self, run_id: str) -> Run | None:
        found = self._records(Run, "SELECT document FROM run WHERE id = ?", run_id)
        return found[0] if found else None

    def get(self, run_id: str) -> Run:
        found = self.find(run_id)
        if found is None:
            raise NotFound("run", run_id)
        return found

    def create(self, experiment: Experiment, run_id: str, parent: str = "", **fields: Any) -> Run:
        """Create a run.

        Raises
        ------
        Conflict
            If a run has this id already.
        NotFound
            If there is no run with the id `parent`.
        Invalid
            If `run_id` cannot be part of the path of an artifact.
        """
        with self.store.transaction() as database:
            check_path(f"{ORIGIN}/dcid.{run_id}")
            if "/" in run_id or not run_id:
                raise Invalid("run id", f"{run_id!r} is not the id of a run: '/' is not allowed.")
            if self.find(run_id) is not None:
                raise Conflict("run", f"Run {run_id} exists already.")
            root = self.get(parent).root if parent else run_id
            [(count,)] = self._select(
                "SELECT count(*) FROM run WHERE experiment = ?", experiment.id
            )
            run = Run(run_id, experiment.id, count + 1, root, now(), parent, **fields)
            database.execute(
                "INSERT INTO run (id, experiment, parent, document) VALUES (?, ?, ?, ?)",
                (run.id, run.experiment, run.parent, encode(run)),
            )
        return run

    def change(self, run_id: str, function: Callable[[Run], Run]) -> Run:
        """Replace a run by ``function(run)``, in one transaction."""
        with self.store.transaction() as database:
            changed = function(self.get(run_id))
            database.execute("UPDATE run SET document = ? WHERE id = ?", (encode(changed), run_id))
        return changed

    def set_status(self, run_id: str, status: str, error: Mapping[str, str] | None = None) -> Run:
        """Set the status of a run, and the start or end time; a terminal status is final.

        A batch job has the status of its one step.
        """

        def change(run: Run) -> Run:
            if run.is_terminal:
                return run
            started = run.started or (now() if status not in ("NotStarted", "Queued") else "")
            return dataclasses.replace(
                run,
                status=status,
                started=started,
                ended=now() if status in TERMINAL else "",
                error=dict(error) if error else run.error,
            )

        changed = self.change(run_id, change)
        if changed.kind == "step":
            self.set_status(changed.parent, status, error)
        return changed

    def fail_interrupted(self) -> None:
        """Set unfinished runs of an earlier control plane to failed."""
        with self.store.transaction():
            for run in self.select_runs():
                if not run.is_terminal:
                    error = {"code": "WorkspaceEnded", "message": INTERRUPTED}
                    self.set_status(run.id, "Failed", error)


def is_growing_log(path: str) -> bool:
    """Whether an artifact may grow while it is read."""
    origin, _, rest = path.partition("/")
    return origin == ORIGIN and rest.partition("/")[2] == LOG_FILE
