"""Files and log of a run."""

from __future__ import annotations

import dataclasses
import io
import zipfile

import pytest

from mnist_deploy.local.core.faults import NotFound
from mnist_deploy.local.core.runs import LOG_FILE, Job
from mnist_deploy.local.portal import run_files
from mnist_deploy.local.portal.downloads import stream_archive
from mnist_deploy.local.portal.run_files import find_run_file, list_run_files, read_log


@pytest.fixture
def write_log(runs, run):
    def write(*pieces: bytes) -> None:
        runs.store.write(f"{run.artifacts}/{LOG_FILE}", pieces)

    return write


def names(run, runs) -> list[str]:
    return [name for name, _ in list_run_files(run, runs)]


@pytest.mark.parametrize(
    "name",
    ["../dcid.r2/outputs/secret", "/outputs/secret", "outputs/../../dcid.r2/outputs/secret", "..",
     "ExperimentRun/dcid.r2/outputs/secret", "", "outputs", "outputs/", "a\0b", "\ud800"],
)  # fmt: skip
def test_file_of_another_run_is_not_found(runs, run, name):
    other = runs.create(runs.create_experiment("digits"), "r2")
    runs.store.write(f"{other.artifacts}/outputs/secret", [b"s"])
    runs.store.write(f"{run.artifacts}/outputs/own", [b"o"])
    assert find_run_file(run, runs, "outputs/own").file.read_bytes() == b"o"
    with pytest.raises(NotFound):
        find_run_file(run, runs, name)


def test_run_whose_id_begins_another_id_lists_its_own_files_only(runs, run):
    for run_id in ("r", "r10"):
        other = runs.create(runs.create_experiment("digits"), run_id)
        runs.store.write(f"{other.artifacts}/outputs/f", [b""])
    assert names(run, runs) == []


def test_batch_job_has_log_and_outputs_of_its_step(runs):
    experiment = runs.create_experiment("batch")
    parent = runs.create(experiment, "b", kind="batch")
    job = Job(("python",), outputs={"score": "azureml/step/score"})
    step = runs.create(experiment, "step", "b", kind="step", job=job)
    runs.store.write("azureml/step/score/predictions.csv", [b"7"])
    runs.store.write(f"{step.artifacts}/{LOG_FILE}", [b"scored\n"])
    assert sorted(names(parent, runs)) == ["score/predictions.csv", LOG_FILE]
    assert read_log(parent, runs, 0)["text"] == "scored\n"


def test_log_is_read_from_the_requested_byte(runs, run, write_log):
    assert read_log(run, runs, 0) == {"text": "", "start": 0, "end": 0}
    write_log(b"one\ntw")
    assert read_log(run, runs, 0) == {"text": "one\n", "start": 0, "end": 4}
    write_log(b"one\ntwo\nthree")
    assert read_log(run, runs, 4) == {"text": "two\n", "start": 4, "end": 8}
    ended = runs.set_status("r1", "Completed")
    assert read_log(ended, runs, 8) == {"text": "three", "start": 8, "end": 13}
    assert read_log(ended, runs, 13) == {"text": "", "start": 13, "end": 13}


def test_long_log_is_read_from_the_first_whole_line_of_its_end(runs, run, write_log, monkeypatch):
    monkeypatch.setattr(run_files, "MAX_LOG_PIECE", 10)
    write_log(b"0123456\n" * 5)
    assert read_log(run, runs, 0) == {"text": "0123456\n", "start": 32, "end": 40}
    assert read_log(run, runs, 32) == {"text": "0123456\n", "start": 32, "end": 40}


def test_log_that_was_replaced_by_a_shorter_one_is_read_from_its_beginning(runs, run, write_log):
    write_log(b"new\n")
    assert read_log(run, runs, 99) == {"text": "new\n", "start": 0, "end": 4}


def test_line_without_end_is_not_cut_within_a_character(runs, run, write_log):
    write_log("zé".encode()[:2])
    assert read_log(run, runs, 0) == {"text": "z", "start": 0, "end": 1}
    write_log("zé".encode())
    assert read_log(run, runs, 1) == {"text": "é", "start": 1, "end": 3}
    write_log(b"\xff\n")
    assert read_log(run, runs, 0)["text"] == "\N{REPLACEMENT CHARACTER}\n"


def test_log_without_its_file_is_empty(runs, run, write_log):
    write_log(b"one\n")
    runs.store.artifact(f"{run.artifacts}/{LOG_FILE}").file.unlink()
    assert read_log(run, runs, 0)["text"] == ""


def test_archive_is_streamed_in_pieces_and_can_be_unpacked(tmp_path):
    contents = {"a/one": b"1" * 700_000, "two": b""}
    files = []
    for number, (name, content) in enumerate(contents.items()):
        (tmp_path / str(number)).write_bytes(content)
        files.append((name, tmp_path / str(number)))
    pieces = list(stream_archive(files))
    assert max(map(len, pieces)) < 400_000
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == contents


def test_job_output_below_the_artifacts_of_the_run_is_listed_once(runs, run):
    outputs = {"model": f"{run.artifacts}/model"}
    changed = runs.change("r1", lambda run: dataclasses.replace(run, job=Job((), outputs=outputs)))
    runs.store.write(f"{run.artifacts}/model/m", [b""])
    assert names(changed, runs) == ["model/m"]
