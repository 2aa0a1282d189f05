"""The process of a batch job: distributes the files of the inputs to worker processes.

``python -m mnist_deploy.local.scoring.batch SETTINGS OUTPUT INPUT…``, in the folder of the code:
the settings as JSON, the folder of the output, and the files or folders to score.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path

from .batch_worker import Message, work

PROGRESS_INTERVAL = 1.0  # seconds between two lines of progress
SPAWN = multiprocessing.get_context("spawn")


class BatchError(Exception):
    """An error that ends the batch job."""


@dataclass(frozen=True)
class Settings:
    """The settings of the deployment.

    Attributes
    ----------
    script : str
        The path of the script in the code folder; empty for an MLflow model without code.
    workers : int
        The number of concurrent worker processes.
    error_threshold : int
        The number of failed files that the job tolerates; -1 for any number.
    max_retries : int
        The retries of a mini-batch after an exception, a time-out or the end of its worker.
    timeout : float
        The time limit of one mini-batch in seconds.
    output_file : str
        The name of the output file; empty for the output action summary_only.
    """

    script: str
    workers: int
    mini_batch_size: int
    error_threshold: int
    max_retries: int
    timeout: float
    output_file: str
    logging_level: str = "info"


@dataclass(frozen=True)
class MiniBatch:
    number: int
    files: tuple[str, ...]
    failures: int = 0


class Worker:
    """The parent's handle of a worker process."""

    def __init__(self, settings: Settings, mini_batch: MiniBatch) -> None:
        self.connection, other = SPAWN.Pipe()
        self._timeout = settings.timeout
        self._process = SPAWN.Process(
            target=work,
            args=(other, settings.script, settings.logging_level, bool(settings.output_file)),
        )
        self._process.start()
        other.close()  # then `connection` is at its end as soon as the worker ends
        self.is_ready = False  # True as soon as init() has returned
        self.mini_batch: MiniBatch | None = mini_batch
        self.deadline = float("inf")

    def start(self, mini_batch: MiniBatch) -> None:
        self.mini_batch = mini_batch
        self.deadline = time.monotonic() + self._timeout
        with contextlib.suppress(OSError):  # the worker has ended: `receive` reports that
            self.connection.send(list(mini_batch.files))

    def receive(self) -> Message | None:
        """Return a message of the worker; None if the worker has ended."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def kill(self) -> int | None:
        """Kill the worker; return its exit status, negative for a signal."""
        self._process.join(0.5 if self.deadline > time.monotonic() else 0)
        self._process.kill()
        self._process.join()
        self.connection.close()
        return self._process.exitcode


class Scoring:
    """Distributes mini-batches to workers, and appends their results to the output file."""

    def __init__(self, settings: Settings, output: Path, inputs: Sequence[str]) -> None:
        self._settings = settings
        files = list_files(inputs, is_nested=bool(settings.script))
        self._left = list_mini_batches(files, settings.mini_batch_size)
        self._again: deque[MiniBatch] = deque()
        self._workers: list[Worker] = []
        self._path = output / settings.output_file if settings.output_file else None
        self._reported = time.monotonic()
        self.scored = self.failed = 0

    def run(self) -> None:
        """Score all files.

        Raises
        ------
        BatchError
            If more files failed than the error threshold allows, or a worker's ``init()`` failed.
        """
        try:
            if self._path:
                self._path.touch()
            while self._start_workers():
                self._wait_for_workers()
        finally:
            for worker in self._workers:
                worker.deadline = 0
                worker.kill()
        if not self.scored and not self.failed:
            raise BatchError("The inputs hold no file: expected a file, or a folder with files.")
        self._report()

    def _start_workers(self) -> bool:
        """Send a mini-batch to each idle worker; return whether any worker is busy."""
        for worker in self._workers:
            if worker.mini_batch is None and (mini_batch := self._next()):
                worker.start(mini_batch)
        while len(self._workers) < self._settings.workers and (mini_batch := self._next()):
            self._workers.append(Worker(self._settings, mini_batch))
        return any(worker.mini_batch for worker in self._workers)

    def _next(self) -> MiniBatch | None:
        return self._again.popleft() if self._again else next(self._left, None)

    def _wait_for_workers(self) -> None:
        busy = [worker for worker in self._workers if worker.mini_batch]
        seconds = min(worker.deadline for worker in busy) - time.monotonic()
        ready = wait(
            [worker.connection for worker in busy],
            None if seconds == float("inf") else max(0, seconds),
        )
        for worker in busy:
            if worker.connection in ready:
                self._take(worker, worker.receive())
            elif time.monotonic() > worker.deadline:
                self._replace(worker, f"it took longer than {self._settings.timeout:g} s")

    def _take(self, worker: Worker, message: Message | None) -> None:
        if message is None:
            self._replace(worker, "its worker process ended")
        elif not worker.is_ready:
            if message.error:
                raise BatchError(f"{message.error}init() of the scoring script failed.")
            worker.is_ready = True
            assert worker.mini_batch is not None
            worker.start(worker.mini_batch)
        elif worker.mini_batch is not None:
            mini_batch, worker.mini_batch = worker.mini_batch, None
            worker.deadline = float("inf")
            if message.fails_job:
                raise BatchError(message.error)
            if message.error:
                self._fail(mini_batch, message.error)
            else:
                self._append(mini_batch, message)

    def _replace(self, worker: Worker, reason: str) -> None:
        """Kill a worker; a new worker starts with the next mini-batch."""
        status = worker.kill()
        self._workers.remove(worker)
        if not worker.is_ready or worker.mini_batch is None:
            raise BatchError(f"A worker process ended in init(), with exit status {status}.")
        self._fail(worker.mini_batch, f"{reason} (exit status {status})")

    def _fail(self, mini_batch: MiniBatch, reason: str) -> None:
        failures = mini_batch.failures + 1
        print(f"Mini-batch {mini_batch.number} failed, attempt {failures}: {reason}", flush=True)
        if failures <= self._settings.max_retries:
            self._again.append(MiniBatch(mini_batch.number, mini_batch.files, failures))
        else:
            self._count_failed(len(mini_batch.files))

    def _append(self, mini_batch: MiniBatch, message: Message) -> None:
        if self._path:
            try:
                with open(self._path, "a", encoding="utf-8", newline="") as file:
                    file.write(message.rows)
            except OSError as error:  # the disk is full
                raise BatchError(f"The results cannot be written: {error}") from error
        missing = max(0, len(mini_batch.files) - message.count)
        self.scored += len(mini_batch.files) - missing
        if missing:
            print(f"Mini-batch {mini_batch.number}: {missing} files have no result.", flush=True)
            self._count_failed(missing)
        if time.monotonic() > self._reported + PROGRESS_INTERVAL:
            self._report()

    def _count_failed(self, count: int) -> None:
        self.failed += count
        if 0 <= self._settings.error_threshold < self.failed:
            raise BatchError(
                f"{self.failed} files failed, but error_threshold allows "
                f"{self._settings.error_threshold}: the remaining files are not scored."
            )

    def _report(self) -> None:
        self._reported = time.monotonic()
        print(f"{self.scored} files scored, {self.failed} failed", flush=True)


def list_mini_batches(files: Iterator[str], size: int) -> Iterator[MiniBatch]:
    number = 0
    while group := tuple(islice(files, size)):
        yield MiniBatch(number, group)
        number += 1


def list_files(inputs: Sequence[str], *, is_nested: bool) -> Iterator[str]:
    """Yield the files of all inputs; files of a folder are sorted by name.

    As documented for Azure, an MLflow model without code does not score files in subfolders.
    """
    for path in inputs:
        yield from walk(path, is_nested=is_nested)


def walk(path: str, *, is_nested: bool) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for here, folders, names in os.walk(path):
        folders.sort()
        yield from (os.path.join(here, name) for name in sorted(names))
        if folders and not is_nested:
            print(f"{len(folders)} folders in the input are not explored: an MLflow model without "
                  "code scores the files of one folder.", flush=True)  # fmt: skip
            return


def main(settings: str, output: str, *inputs: str) -> int:
    try:
        Scoring(Settings(**json.loads(settings)), Path(output), inputs).run()
    except BatchError as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
