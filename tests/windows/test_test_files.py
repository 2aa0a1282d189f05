"""The list of what runs on a Windows interpreter names tests that exist, and each reason."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("test_files.txt")


def lines() -> list[list[str]]:
    """The words of each entry: ci, all, run or skip; the path; the reason."""
    text = LIST.read_text(encoding="utf-8")
    return [line.split(maxsplit=2) for line in text.splitlines() if line and line[0] != "#"]


def test_each_entry_names_existing_tests_and_each_skip_its_reason():
    for verb, path, *reason in lines():
        file, _, test = path.partition("::")
        assert (ROOT / file).exists(), path
        name = test.rpartition("::")[2].partition("[")[0]
        assert not test or f"def {name}(" in (ROOT / file).read_text("utf-8"), path
        expected = {"ci": False, "all": False, "run": False, "skip": True}
        assert expected.get(verb) == bool(reason), path
