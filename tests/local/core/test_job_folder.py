"""The folder of a job: code, links to inputs, placeholders, and what is collected."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from mnist_deploy.local.core.faults import Invalid, NotFound
from mnist_deploy.local.core.job_folder import build_job_folder, list_files, upload_files
from mnist_deploy.local.core.records import Code
from mnist_deploy.local.core.runs import Job, JobInput, OutputRules
from mnist_deploy.local.host import filesystem


def test_snapshot_takes_unchanged_files_from_earlier_uploads(store, tmp_path):
    store.write("Code/old/lib/a.py", [b"a"])
    store.write("Code/new/train.py", [b"t"])
    store.put(Code("s1", "1", ("Code/old/lib/a.py", "Code/new/train.py"), "2026"))
    folder = build_job_folder(tmp_path, store, Job(("python", "train.py"), code="s1:1"))
    found = {path for path, _ in list_files(folder.working_directory)}
    assert found == {"lib/a.py", "train.py"}


def test_code_asset_of_one_folder_is_the_working_directory(store, tmp_path):
    store.write("Code/c/src/train.py", [b"t"])
    store.put(Code("c1", "1", ("Code/c/src",), "2026"))
    folder = build_job_folder(tmp_path, store, Job(("python", "train.py"), code="c1:1"))
    assert (folder.working_directory / "train.py").read_bytes() == b"t"


@pytest.mark.skipif(sys.platform == "win32", reason="inputs are copies there")
@pytest.mark.parametrize("user", [0, 1000])
def test_input_is_a_link_or_for_the_superuser_a_copy(store, tmp_path, monkeypatch, user):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    store.write("datastore/mnist/train.gz", [b"images"])
    files = JobInput(("datastore/mnist",), "datastore/mnist")
    for is_copied in (False, True):
        job_input = dataclasses.replace(files, is_copied=is_copied)
        job = Job(("${{inputs.mnist}}",), inputs={"mnist": job_input})
        link = Path(build_job_folder(tmp_path, store, job).command[0], "train.gz")
        assert link.read_bytes() == b"images"
        assert link.is_symlink() == (user == 1000 and not is_copied)
        assert bool(link.stat().st_mode & 0o222) != link.is_symlink()


def test_placeholders_are_the_paths_of_inputs_and_outputs(store, tmp_path):
    store.write("datastore/mnist/deep/train.gz", [b"images"])
    store.write("datastore/one.csv", [b"1,2"])
    job = Job(
        ("python", "t.py", "--data=${{inputs.mnist}}", "${{ inputs.table }}", "${{outputs.m}}"),
        variables={"mnist": "${{inputs.mnist}}"},
        inputs={
            "mnist": JobInput(("datastore/mnist",), "datastore/mnist"),
            "table": JobInput(("datastore/one.csv",), "datastore", is_file=True),
        },
        outputs={"m": "ExperimentRun/dcid.r/named"},
    )
    folder = build_job_folder(tmp_path, store, job)
    data = folder.variables["mnist"]
    assert folder.command[2] == f"--data={data}"
    assert Path(data, "deep", "train.gz").read_bytes() == b"images"
    assert folder.command[3].endswith("one.csv")
    assert os.path.isdir(folder.command[4])
    folder.remove()
    assert not folder.path.exists()
    assert store.artifact("datastore/one.csv").file.read_bytes() == b"1,2"


def test_missing_input_and_unknown_placeholder_are_rejected_and_leave_nothing(store, tmp_path):
    with pytest.raises(NotFound, match="datastore/none"):
        build_job_folder(
            tmp_path / "jobs",
            store,
            Job(("true",), inputs={"x": JobInput(("datastore/none",), "datastore/none")}),
        )
    with pytest.raises(Invalid, match=r"inputs\.y.* is not an input or output"):
        build_job_folder(tmp_path / "jobs", store, Job(("echo", "${{inputs.y}}")))
    assert list((tmp_path / "jobs").iterdir()) == []


def test_links_out_of_the_folder_are_not_collected(store, tmp_path):
    folder = build_job_folder(tmp_path, store, Job(("true",)))
    outputs = folder.working_directory / "outputs"
    (outputs / "deep").mkdir()
    (outputs / "deep" / "model.pkl").write_bytes(b"m")
    (outputs / "secret").symlink_to("/etc/hostname")
    assert upload_files(store, "ExperimentRun/dcid.r", folder.files_to_collect()) == 1
    [kept] = store.artifacts("ExperimentRun/dcid.r")
    assert kept.path == "ExperimentRun/dcid.r/outputs/deep/model.pkl"


def test_source_of_an_output_is_rejected_where_links_need_a_privilege(store, tmp_path, monkeypatch):
    rules = {"table": OutputRules(source="made/here")}
    job = Job(("python", "train.py"), outputs={"table": "ExperimentRun/r"}, output_rules=rules)
    monkeypatch.setattr(filesystem, "CAN_LINK", False)
    with pytest.raises(Invalid, match="source made/here of an output requires a symbolic link"):
        build_job_folder(tmp_path / "jobs", store, job)
    assert not list((tmp_path / "jobs").iterdir())
