"""Cores and memory of an instance: from the name of a VM size, or from Kubernetes quantities."""

from __future__ import annotations

import re

from ..core.faults import Invalid, NotSupported

# "Managed online endpoints SKU list" of 2025: (name, numbers in the name, GB for each core).
FAMILIES: tuple[tuple[str, tuple[int, ...], float], ...] = (
    ("Standard_DS{}_v2", (1, 2, 3, 4, 5), 3.5),
    ("Standard_D{}a_v4", (2, 4, 8, 16, 32, 48, 64, 96), 4),
    ("Standard_D{}as_v4", (2, 4, 8, 16, 32, 48, 64, 96), 4),
    ("Standard_E{}s_v3", (2, 4, 8, 16, 32, 48, 64), 8),
    ("Standard_F{}s_v2", (2, 4, 8, 16, 32, 48, 64, 72), 2),
    ("Standard_FX{}mds", (4, 12, 24, 36, 48), 21),
    ("Standard_L{}s_v2", (8, 16, 32, 48, 64, 80), 8),
    ("Standard_L{}s_v3", (8, 16, 32, 48, 64, 80), 8),
    ("Standard_L{}as_v3", (8, 16, 32, 48, 64, 80), 8),
)
GPU = re.compile(r"standard_n[cdgv]\d+\w*", re.IGNORECASE)
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
FACTORS = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
           "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}  # fmt: skip


def _list_sizes() -> dict[str, tuple[float, float]]:
    sizes: dict[str, tuple[float, float]] = {}
    for name, numbers, gb_for_each_core in FAMILIES:
        for number in numbers:
            # Names contain the number of cores; in the family DS v2, cores = 2 ** (number - 1).
            cores = 2 ** (number - 1) if name == "Standard_DS{}_v2" else number
            sizes[name.format(number).lower()] = (float(cores), cores * gb_for_each_core)
    return sizes


SIZES = _list_sizes()


def parse_instance_type(name: str) -> tuple[float, float]:
    """(cores, memory in GB) of a VM size, such as (4, 32) of Standard_E4s_v3.

    Raises
    ------
    Invalid
        If managed online endpoints do not offer the size.
    NotSupported
        If the size has GPUs.
    """
    if GPU.fullmatch(name):
        raise NotSupported(f"instance_type {name}: GPUs")
    if name.lower() not in SIZES:
        allowed = ", ".join(
            family.format("{" + ",".join(map(str, numbers)) + "}")
            for family, numbers, _ in FAMILIES
        )
        raise Invalid(
            "instance type",
            f"instance_type {name!r} is not a VM size of managed online endpoints. Expected one of "
            f"{allowed}.",
        )
    return SIZES[name.lower()]


def parse_quantity(option: str, text: str) -> float:
    """A Kubernetes quantity as a number: 0.5 for ``500m``, 2147483648 for ``2Gi``.

    Raises
    ------
    Invalid
        If the text is not a quantity, or is zero.
    """
    found = QUANTITY.fullmatch(text)
    value = float(found[1]) * FACTORS[found[2] or ""] if found else 0.0
    if not value:
        raise Invalid(
            "resources", f"{option} is {text!r}, but a quantity such as 1, 500m or 2Gi is expected."
        )
    return value
