"""What is installed from a wheel finds the tutorial's files, and bounds agree with each other."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

import mnist_deploy
from mnist_deploy.tutorial import tutorial_file

ROOT = Path(mnist_deploy.__file__).parents[1]
FILES = [
    "score.py",
    "environment.yml",
    *(f"notebooks/{file.name}" for file in sorted(ROOT.glob("notebooks/*.ipynb"))),
]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder as `pip install` leaves one, from a wheel of the work tree."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_installed_wheel_finds_the_tutorials_files(site, tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from mnist_deploy.tutorial import tutorial_file\n"
        "for name in sys.argv[2:]: print(tutorial_file(name))\n"
    )
    run = subprocess.run(
        [sys.executable, "-B", "-c", program, str(site), *FILES],
        cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    found = [Path(line) for line in run.stdout.splitlines()]
    assert len(found) == len(FILES) >= 3
    for name, path in zip(FILES, found, strict=True):
        assert path.is_relative_to(site / "mnist_deploy")
        assert path.read_bytes() == (ROOT / name).read_bytes()


def test_wheel_contains_only_the_package(site):
    top = {path.name for path in site.iterdir()}
    assert top == {"mnist_deploy", f"mnist_deploy-{mnist_deploy.__version__}.dist-info"}
    assert (site / "mnist_deploy" / "py.typed").exists()
    suffixes = {path.suffix for path in site.rglob("*") if path.is_file()}
    code, pages = {".py", ".pyi", ".typed"}, {".css", ".html", ".js"}
    assert suffixes <= {
        *code,
        *pages,
        ".md",
        ".yml",
        ".ipynb",
        ".gz",
        ".txt",
        "",
    }  # .txt: entry points
    assert not list(site.rglob("__pycache__"))


def test_file_of_the_same_name_elsewhere_is_not_a_tutorial_file():
    assert tutorial_file("score.py") == ROOT / "score.py"
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py is not a file of the tutorial"):
        tutorial_file("nowhere.py")


def test_version_is_defined_once(project):
    assert project["version"] == mnist_deploy.__version__ == metadata.version("mnist-deploy")


def test_extras_are_not_named_like_a_version(project):
    """Else pip 24.1 to 25.3 compares it with one, and installs nothing."""
    for extra in project["optional-dependencies"]:
        with pytest.raises(InvalidVersion):
            Version(extra)


def test_pins_of_the_container_are_within_the_bounds_of_the_package(project):
    """What trains on one of our Pythons may be loaded there."""
    specification = yaml.safe_load(tutorial_file("environment.yml").read_text())
    (python,) = [line for line in specification["dependencies"] if str(line).startswith("python=")]
    assert SpecifierSet(project["requires-python"]).contains(python.partition("=")[2])
    (section,) = [entry for entry in specification["dependencies"] if isinstance(entry, dict)]
    bounds = [Requirement(line) for line in project["dependencies"]]
    compared = set()
    for pin in map(Requirement, section["pip"]):
        ours = [bound.specifier for bound in bounds if bound.name == pin.name]
        (exact,) = pin.specifier
        assert not ours or any(each.contains(exact.version) for each in ours), pin
        compared |= {pin.name} if ours else set()
    assert compared >= {"scikit-learn", "numpy", "joblib", "msgspec"}
