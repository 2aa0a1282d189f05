"""The code blocks of the two articles that the tutorial is made from, unchanged, under ``exec``.

The articles are not part of the project; without ``../shared/seeds`` the tests are skipped.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plain_notebooks import run_notebook, write_notebook

pytestmark = pytest.mark.nightly

ARTICLES = Path(__file__).resolve().parents[2] / "shared" / "seeds"
PROBE = "import json; print('PROBE', json.dumps([len(y_test), float(np.mean(y_test == y_hat))]))"


@pytest.mark.parametrize(
    "article", ["000_2aa8e73b427e657f.txt", "002_17336a7aca56a21a.txt"], ids=["2020", "2018"]
)
def test_code_of_the_article_runs_unchanged(article, tmp_path):
    if not (ARTICLES / article).is_file():
        pytest.skip("the articles are not in ../shared/seeds, next to the repository")
    blocks = re.findall(
        r"^```python\n(.+?)^```", (ARTICLES / article).read_text("utf-8"), re.M | re.S
    )
    write_notebook(tmp_path / "article" / "article.ipynb", [*blocks, PROBE], "python3")
    data_dir = ARTICLES.parent / "mnist"
    printed, (count, accuracy) = run_notebook(
        tmp_path / "article" / "article.ipynb", tmp_path / "home", "--data-dir", str(data_dir)
    )
    assert "Overall accuracy:" in printed
    assert (count, accuracy) == (10_000, 0.9204)  # the figure that the articles print
