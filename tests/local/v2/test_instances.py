"""Cores and memory of VM sizes and of Kubernetes quantities."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.faults import Invalid, NotSupported
from mnist_deploy.local.v2.instances import parse_instance_type, parse_quantity


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Standard_DS1_v2", (1, 3.5)),
        ("STANDARD_DS3_V2", (4, 14)),
        ("Standard_E4s_v3", (4, 32)),
        ("Standard_F2s_v2", (2, 4)),
        ("Standard_FX4mds", (4, 84)),
    ],
)
def test_vm_size_determines_cores_and_memory(name, size):
    """Article "Managed online endpoints SKU list"."""
    assert parse_instance_type(name) == size


@pytest.mark.parametrize("name", ["", "large", "Standard_DS6_v2", "Standard_D3_v99", "Basic_A1"])
def test_vm_size_that_managed_endpoints_do_not_offer_is_rejected(name):
    with pytest.raises(Invalid, match=r"Expected one of Standard_DS\{1,2,3,4,5\}_v2"):
        parse_instance_type(name)


def test_vm_size_with_gpus_is_not_supported():
    with pytest.raises(NotSupported, match="GPUs"):
        parse_instance_type("Standard_NC4as_T4_v3")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("500m", 0.5), ("1.5Gi", 1.5 * 2**30), ("2G", 2e9), ("64Mi", 64 * 2**20),
        ("0.1", 0.1), ("3k", 3000), ("1Ki", 1024), ("1Ti", 2**40), ("1T", 1e12), ("7M", 7e6),
    ],
)  # fmt: skip
def test_quantity_is_parsed_exactly(text, value):
    """Kubernetes, "Resource units"."""
    assert parse_quantity("resources.limits.cpu", text) == value


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "1.", "1 Gi", "1gi", "1e3", "0m"])
def test_invalid_quantity_is_rejected(text):
    with pytest.raises(Invalid, match=r"resources.limits.cpu is .*, but a quantity such as"):
        parse_quantity("resources.limits.cpu", text)
