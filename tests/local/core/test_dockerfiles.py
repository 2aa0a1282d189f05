"""What an image has of a Dockerfile: files, variables, and reports of what was not run."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.dockerfiles import apply_dockerfile
from mnist_deploy.local.core.faults import Invalid, NotFound


@pytest.fixture
def build(tmp_path):
    """Apply a Dockerfile's text to a context with a few files; the content of the image."""
    context, root = tmp_path / "context", tmp_path / "root"
    (context / "app" / "sub").mkdir(parents=True)
    root.mkdir()
    (context / "app" / "score.py").write_text("# script")
    (context / "app" / "sub" / "data.txt").write_text("data")
    (context / "conda.yml").write_text("dependencies: [python, {pip: [no-such-package==1]}]")
    (context / "requirements.txt").write_text("another-missing-package>2\nnumpy\n")

    def apply(text):
        (context / "Dockerfile").write_text(text)
        return apply_dockerfile(context, "Dockerfile", root)

    return apply


def test_dockerfile_sets_files_and_variables_of_the_image(build):
    image = build(
        "# a comment\nFROM python:3.11\nWORKDIR /var\nCOPY --chown=1001:1001 app azureml-app\n"
        'ENV A="one two" \\\n    B=three\nENV C four five\nCOPY app/score.py app/sub /opt/\n'
    )
    assert (image.root / "var/azureml-app/score.py").read_text() == "# script"
    assert (image.root / "var/azureml-app/sub/data.txt").read_text() == "data"
    assert (image.root / "opt/score.py").is_file()
    assert image.variables == {"A": "one two", "B": "three", "C": "four five"}


def test_run_is_reported_as_not_run(build):
    output = build("FROM x\nRUN pip install numpy\n").output
    assert output[0] == "Step 1/2 : FROM x"
    assert "not run: the local workspace builds no image" in output[2]


def test_copied_requirements_are_compared(build):
    image = build("FROM x\nCOPY conda.yml requirements.txt /tmp/\n")
    assert [line.split(";")[0] for line in image.warnings] == [
        "environment: no-such-package: required ==1, installed none",
        "environment: another-missing-package: required >2, installed none",
    ]
    assert set(image.warnings) <= set(image.output)


@pytest.mark.parametrize(
    ("line", "fault", "message"),
    [
        ("COPY missing.py /app/", NotFound, "missing.py"),
        ("COPY ../../secret /app/", Invalid, "is not inside its folder"),
        ("COPY app /../../out", Invalid, "is not inside its folder"),
        ('COPY "app', Invalid, "cannot be read"),
    ],
)
def test_line_that_cannot_be_applied_is_rejected(build, line, fault, message):
    with pytest.raises(fault, match=message):
        build(f"FROM x\n{line}\n")


def test_missing_dockerfile_is_reported(tmp_path):
    with pytest.raises(NotFound, match="no Dockerfile Other"):
        apply_dockerfile(tmp_path, "Other", tmp_path)
