"""The HTML page that ``python -m mnist_deploy`` writes beside the executed notebook."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from mnist_deploy.__main__ import render_page


@pytest.fixture
def page(tmp_path) -> str:
    """A page in tmp_path/outputs, of a notebook in tmp_path/notebooks beside another."""
    text = (
        "# Title\n\n$x^2$ [next](the%20next.ipynb#part) [missing](missing.ipynb) [here](#Title) "
        "[web](https://example.org/)\n\n```mermaid\ngraph TD; A-->B\n```"
    )
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("print(1)")],
        metadata={"widgets": {}},
    )
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "the next.ipynb").touch()
    return render_page(notebook, folder / "my notebook.ipynb", tmp_path / "outputs")


def test_page_loads_nothing_from_other_hosts(page):
    assert "<script" not in page
    assert re.findall(r"<(?:link|img|iframe)\b[^>]*(?:src|href)=\W?https?:", page) == []
    assert re.findall(r"(?:@import|url\()\W{0,2}https?:", page) == []


def test_links_work_from_the_output_folder(page, tmp_path):
    links = dict(re.findall(r'<a href="([^"]*)">(\w+)</a>', page))
    assert links == {
        "../notebooks/the%20next.ipynb#part": "next",
        "missing.ipynb": "missing",
        "#Title": "here",
        "https://example.org/": "web",
    }
    assert Path(tmp_path, "outputs", "../notebooks/the next.ipynb").resolve().exists()


def test_page_is_titled_with_the_name_of_the_notebook(page):
    assert "<title>my notebook</title>" in page
