"""What the README shows is what the tests run, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_examples_are_the_files_that_the_tests_run():
    shown = re.findall(r"<!-- (tests/examples/\S+) -->\n```python\n(.*?)```", README, re.DOTALL)
    assert len(shown) == 4
    for path, code in shown:
        assert code == (ROOT / path).read_text(encoding="utf-8"), path


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_stand_in_it():
    assert "pip install -e . && .venv/bin/python -m mnist_deploy\n" in README
    assert "pip install -e '.[test]' && .venv/bin/pytest\n" in README
