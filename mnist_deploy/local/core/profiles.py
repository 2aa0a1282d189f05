"""Profiles: latency, CPU and memory of a script and its models, measured with a data set.

A profile starts a container and a client process that sends it the rows (`programs.profile`), and
derives from the measurements which resources a deployment should request. One container is
measured at a time, because two would share the CPU.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .container_spec import ContainerSpec
from .deployments import DeploymentSpec, extract_failure_log
from .endpoints import Endpoint, Endpoints, EndpointSpec
from .faults import Failed, Fault, Full
from .job_engine import JobProcess, Launch
from .operations import Operation
from .records import Profile
from .store import Store

MEMORY_RESERVE = 1.25  # factor applied to the measured peak
STEP = 0.1  # cores and GB: step of recommendations, and Azure's minimum
WAIT_INTERVAL = 0.2  # seconds between two polls of the measuring process
TIMEOUT = 1500.0  # seconds: the 25 minutes of the SDK's documentation
LOG_LINES = 5000
PROGRAM = ("python", "-P", "-m", "mnist_deploy.local.programs.profile")

INTERRUPTED = (
    "The local workspace ended before the model was profiled. Profile it again, and keep a process "
    "that uses the workspace alive until the profile has ended."
)
FAILED, INVALID_DATA, INCOMPLETE = "ProfilingFailed", "InvalidDataset", "ProfilingIncomplete"


class ProfileError(Exception):
    """A profile failed or is incomplete.

    Attributes
    ----------
    code : str
        The error code in responses.
    log : str
        The log of the container; empty if no container was started.
    """

    def __init__(self, code: str, message: str, log: str = "") -> None:
        super().__init__(message)
        self.code, self.log = code, log


class Profiler:
    """Measures one container at a time.

    Parameters
    ----------
    store : Store
    endpoints : Endpoints
        The endpoints whose runtime runs the containers.
    folder : Path
        The parent of the temporary folder of each measurement.
    launch : callable
        Starts a process, as for a `JobEngine`.
    environment : mapping of str to str
        The environment variables by which that process connects to this workspace.
    """

    def __init__(
        self,
        store: Store,
        endpoints: Endpoints,
        folder: Path,
        launch: Launch,
        environment: Mapping[str, str],
    ) -> None:
        self._store, self._endpoints, self._folder = store, endpoints, folder
        self._launch, self._environment = launch, environment
        self._measuring = threading.Lock()  # held while a container is measured
        self._stopping = threading.Event()
        self._specs: dict[str, ContainerSpec] = {}  # of unfinished profiles, by profile id
        self._endpoint: Endpoint | None = None  # the measured one
        store.gc_roots.append(self._uploads)

    def fail_interrupted(self) -> None:
        """Set unfinished profiles of an earlier control plane to failed."""
        for profile in self._store.all(Profile):
            if profile.state == "Running":
                self._end(profile, ProfileError("WorkspaceEnded", INTERRUPTED))

    def submit(
        self, profile: Profile, spec: ContainerSpec, variables: Mapping[str, str]
    ) -> Operation:
        """Register a profile and queue its measurement.

        Parameters
        ----------
        variables : mapping of str to str
            Additional environment variables of the measuring process.
        """
        profile = self._store.add(profile)
        operation = self._endpoints.operations.begin("Profile")
        self._specs[id_of(profile)] = spec
        work = partial(self._execute, profile, spec, operation, variables)
        self._endpoints.runtime.run(work)
        return operation

    def stop(self) -> None:
        """Stop measuring; unfinished profiles fail."""
        self._stopping.set()
        endpoint = self._endpoint
        if endpoint is not None:
            for deployment in list(endpoint.deployments.values()):
                deployment.end(0)

    def _uploads(self) -> Iterator[str]:
        """The artifacts that unfinished profiles need for their containers."""
        for spec in list(self._specs.values()):
            yield from (upload.artifact for upload in spec.uploads)
            yield from (path for model in spec.models for path in model.artifacts)

    def _execute(
        self,
        profile: Profile,
        spec: ContainerSpec,
        operation: Operation,
        variables: Mapping[str, str],
    ) -> None:
        """Measure a container, and record the result or the error."""
        error: ProfileError | None = None
        measured: dict[str, Any] = {}
        log = ""
        try:
            with self._measuring:
                if not self._stopping.is_set():
                    measured, log = self._measure(profile, spec, variables)
                    error = find_problem(measured, spec)
        except ProfileError as failed:
            error, log = failed, failed.log
        except Fault as fault:
            error = ProfileError(FAILED, str(fault))
        except Exception as cause:
            logging.getLogger(__name__).exception("profile %s could not be measured", profile.name)
            error = ProfileError("ServiceError", f"{type(cause).__name__}: {cause}")
        if self._stopping.is_set():
            error = ProfileError("WorkspaceEnded", INTERRUPTED)
        try:
            ended = self._end(profile, error, measured, log)
        except (Full, OSError, sqlite3.OperationalError) as problem:
            operation.finish(Failed("profile", str(problem)))
            raise
        finally:
            self._specs.pop(id_of(profile), None)
        is_failed = ended.state == "Failed"
        operation.finish(Failed("profile", str(error)) if is_failed else None)

    def _end(
        self,
        profile: Profile,
        error: ProfileError | None,
        measured: Mapping[str, Any] = {},
        log: str = "",
    ) -> Profile:
        """Record the final state of a profile, and the log of its container."""
        artifacts: tuple[str, ...] = ()
        if log:
            path = f"Profile/{id_of(profile)}/log.txt"
            artifacts = (self._store.write(path, [log.encode()]).path,)
        is_measured = error is None or error.code == INCOMPLETE
        return self._store.change(
            Profile,
            profile.name,
            profile.version,
            lambda present: dataclasses.replace(
                present,
                state="Succeeded" if is_measured else "Failed",
                error={"code": error.code, "message": str(error)} if error else None,
                measured=dict(measured) if is_measured else {},
                artifacts=artifacts,
            ),
        )

    def _measure(
        self, profile: Profile, spec: ContainerSpec, variables: Mapping[str, str]
    ) -> tuple[dict[str, Any], str]:
        """Return the measurements and the log of the container.

        Raises
        ------
        ProfileError
            If the container does not start or ends early, the data set cannot be read, or no
            request succeeds.
        """
        name = f"profile-{profile.name}"
        address = self._endpoints.runtime.open_address("service", name)
        endpoint = Endpoint("service", name, address)
        try:
            target = DeploymentSpec(spec)
            endpoint.spec = EndpointSpec({name: target}, {name: 100})
            deployment = endpoint.new_deployment(name)
            endpoint.deployments[name] = deployment
            self._endpoint = endpoint
            change = deployment.accept(target)
            assert change is not None
            endpoint.apply_access_policy()
            if self._stopping.is_set():
                raise ProfileError("WorkspaceEnded", INTERRUPTED)
            try:
                deployment.reconcile(change, spec)
            except Failed as fault:
                raise ProfileError(FAILED, str(fault), deployment.log_tail(LOG_LINES)) from fault
            endpoint.route()
            [container] = deployment.containers
            processes = container.process_ids
            settings = {
                "dataset": profile.dataset,
                "url": f"{endpoint.url}/score",
                "processes": processes,
            }
            measured = self._run_process(settings, {**self._environment, **variables})
            log = deployment.log_tail(LOG_LINES)
            if container.process_ids != processes:
                message = f"The container ended while it was measured: {find_end(log)}."
                raise ProfileError(FAILED, message, log)
            if not measured["succeeded"]:
                message = (
                    f"None of {measured['queries']} requests succeeded. The first one ended with "
                    f"{measured['reason']}\n{extract_failure_log(log)}"
                )
                raise ProfileError(FAILED, message, log)
            return measured, log
        finally:
            self._endpoint = None
            endpoint.end()

    def _run_process(
        self, settings: Mapping[str, Any], variables: Mapping[str, str]
    ) -> dict[str, Any]:
        """Run the measuring process and return its measurements."""
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        try:
            result, log = folder / "result.json", folder / "log.txt"
            command = [*PROGRAM, json.dumps(settings), str(result)]
            process = self._launch(command, folder, variables, log)
            status = self._wait(process)
            found = json.loads(result.read_text()) if result.exists() else {}
            if "invalid" in found:
                raise ProfileError(INVALID_DATA, found["invalid"])
            if status != 0:
                end = log.read_text(errors="replace").strip()[-2000:]
                raise ProfileError("ServiceError", f"The measuring process failed.\n{end}")
            return found
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _wait(self, process: JobProcess) -> int:
        remaining = TIMEOUT
        while (status := process.wait(WAIT_INTERVAL)) is None:
            remaining -= WAIT_INTERVAL
            if self._stopping.is_set() or remaining < 0:
                process.kill()
                message = f"The profile has taken longer than {TIMEOUT:g} s: pass fewer rows."
                raise ProfileError(FAILED, message)
        process.kill()  # remaining child processes
        return status


def id_of(profile: Profile) -> str:
    return f"{profile.name}.{profile.version}"


def find_end(log: str) -> str:
    """Return the first line of a container's log that reports the end of a process."""
    reports = [line.partition(" container - ")[2] for line in log.splitlines()]
    ends = [report for report in reports if report.startswith("the scoring process ")]
    return ends[0] if ends else "its log has no reason"


def find_problem(measured: Mapping[str, Any], spec: ContainerSpec) -> ProfileError | None:
    """Return an error if a profile is incomplete, or was measured with other resources."""
    problems = []
    failed = measured["queries"] - measured["succeeded"]
    if failed:
        problems.append(
            f"{failed} of {measured['queries']} requests failed, the first one with "
            f"{measured['reason']}"
        )
    if measured["unsent"]:
        problems.append(
            f"{measured['unsent']} of {measured['rows']} rows were not sent within the time limit"
        )
    if measured["cores"] > 1.1 * spec.cpu_cores:
        problems.append(
            f"the container used {measured['cores']:.2g} cores, and {spec.cpu_cores:g} were "
            "requested: Azure would throttle it, and the latencies would be higher"
        )
    if spec.cpu_cores > (os.cpu_count() or 1):
        problems.append(f"this machine has {os.cpu_count()} cores, not {spec.cpu_cores:g}")
    problems += spec.all_warnings
    return ProfileError(INCOMPLETE, "; ".join(problems).rstrip(".") + ".") if problems else None


def recommend_cpu(measured: Mapping[str, Any]) -> float:
    """Return the cores of the busiest second, rounded up to a multiple of `STEP`."""
    return round_up(measured["cores"])


def recommend_memory(measured: Mapping[str, Any]) -> float:
    """Return the peak resident memory in GB times `MEMORY_RESERVE`, rounded up to `STEP`."""
    return round_up(MEMORY_RESERVE * measured["peak_memory"] / 2**30)


def round_up(value: float) -> float:
    return round(max(1, math.ceil(round(value / STEP, 6))) * STEP, 1)
