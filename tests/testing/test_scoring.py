"""What a mocked container finds in the folder that SDK v1 has uploaded."""

from __future__ import annotations

import pytest
from azureml._model_management._util import generate_main

from mnist_deploy.testing.scoring import read_script


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["posix", "windows"])
def test_script_behind_the_driver_of_azureml_core_is_found(tmp_path, line_end):
    driver = tmp_path / "driver.py"
    generate_main("score.py", "", str(driver), True)
    driver.write_bytes(driver.read_text(encoding="utf-8").encode().replace(b"\n", line_end))
    (tmp_path / "score.py").write_bytes(b"def init(): pass")
    assert read_script(tmp_path, "driver.py") == b"def init(): pass"
