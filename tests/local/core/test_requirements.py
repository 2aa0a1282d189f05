"""What an environment asks for, against the running interpreter."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from mnist_deploy.local.core.requirements import conda_to_pip, differences


def conda(*dependencies) -> dict:
    return {"dependencies": list(dependencies)}


def test_matching_environment_has_no_differences():
    here = platform.python_version()
    agreed = conda(
        f"python={here}", "pip", {"pip": [f"numpy=={version('numpy')}", "azureml-defaults==1.0"]}
    )
    assert differences(agreed) == []


def test_packages_that_differ_get_one_line_each():
    python, sklearn, missing = differences(
        conda("python=3.6.2", {"pip": ["scikit-learn==0.22.1", "no-such-package-here"]})
    )
    assert "python" in python
    assert "3.6.2" in python
    assert platform.python_version() in python
    assert f"scikit-learn: required ==0.22.1, installed {version('scikit-learn')}" in sklearn
    assert "on Azure the image would have scikit-learn ==0.22.1" in sklearn
    assert "no-such-package-here: required any version, installed none" in missing
    assert len(differences(conda({"pip": "x"}, None, 5))) == 2  # reported, and no error


@pytest.mark.parametrize(
    ("conda_pin", "pip"),
    [
        ("numpy", "numpy"),
        ("numpy=1.19", "numpy==1.19.*"),
        ("numpy=1.19.*", "numpy==1.19.*"),
        ("numpy==1.19.2", "numpy==1.19.2"),
        ("numpy>=1.19", "numpy>=1.19"),
        ("numpy >=1.19,<2", "numpy>=1.19,<2"),
        ("numpy 1.19", "numpy==1.19.*"),
        ("conda-forge::scikit-learn=0.22", "scikit-learn==0.22.*"),
        ("numpy=1.19.2=py38h456fd55_0", "numpy==1.19.2.*"),
    ],
)
def test_conda_pins_are_translated_to_pip_requirements(conda_pin, pip):
    assert conda_to_pip(conda_pin) == pip


@pytest.mark.parametrize(
    "odd",
    [
        conda({"pip": ["--extra-index-url https://x.y", "git+https://x.y/z", "# a comment", ""]}),
        conda("???"),
        conda({"pip": ["nothing==1; python_version < '3'"]}),
        None,
        {},
        {"dependencies": None},
        {"dependencies": 5},
    ],
)
def test_environment_without_readable_requirements_has_no_differences(odd):
    assert differences(odd) == []
