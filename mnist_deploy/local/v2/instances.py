"""Cores and memory: of Azure's VM sizes, by their names, and as Kubernetes writes them."""

from __future__ import annotations

import re

from ..core.faults import Invalid, NotSupported

SIZE = re.compile(r"standard_([a-z]+?)(\d+)(?:-\d+)?([a-z]*)(_v\d+)?", re.IGNORECASE)
GB_FOR_EACH_CORE = {"d": 4.0, "ds": 4.0, "e": 8.0, "f": 2.0, "fx": 21.0, "b": 4.0, "m": 28.0}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
FACTORS = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
           "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}  # fmt: skip


def instance_size(name: str) -> tuple[float, float]:
    """(cores, memory in GB) of a VM size, such as (4, 32) of Standard_E4s_v3.

    Raises
    ------
    Invalid
        If it is no name of a size.
    NotSupported
        If it is one with GPUs.
    """
    found = SIZE.fullmatch(name)
    if found is None:
        raise Invalid("instance type", f"{name!r} is no VM size. Expected Standard_DS3_v2 or so.")
    series, number = found[1].lower(), int(found[2])
    if series.startswith("n"):
        raise NotSupported(f"the instance type {name}: GPUs")
    if series == "ds" and found[4] == "_v2":  # older than the rule that the number counts cores
        return 2.0 ** (number - 1), 3.5 * 2 ** (number - 1)
    return float(number), number * GB_FOR_EACH_CORE.get(series, 4.0)


def quantity(text: str) -> float:
    """A number as Kubernetes writes it: 0.5 for ``500m``, 2 GB in bytes for ``2Gi``.

    Raises
    ------
    Invalid
        If it is none, or zero.
    """
    found = QUANTITY.fullmatch(text)
    value = float(found[1]) * FACTORS[found[2] or ""] if found else 0.0
    if not value:
        raise Invalid("resources", f"{text!r} is no quantity. Expected a number, 500m, 2Gi or so.")
    return value
