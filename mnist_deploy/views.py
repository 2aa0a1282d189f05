"""Tables for a notebook where the SDK's own representation is poor: models, services, results.

Each is text in a terminal and HTML in a notebook. None holds a key, and none asks the
workspace for anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from azureml.core import Model
    from azureml.core.webservice import AciWebservice

_SHOWN = 10  # samples on which local and deployed model disagree


@dataclass(frozen=True)
class Table:
    """A title, and names with their values."""

    title: str
    rows: Mapping[str, str]

    def __repr__(self) -> str:
        width = max(map(len, self.rows), default=0)
        lines = (f"  {name:<{width}}  {value}" for name, value in self.rows.items())
        return "\n".join((self.title, *lines))

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in self.rows.items()
        )
        return f"<table><caption>{escape(self.title)}</caption><tbody>{cells}</tbody></table>"


def show_service(service: AciWebservice) -> Table:
    """Show a service at a glance: its state, where it is scored, what it runs.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice
        Shown as it was when it was fetched or last updated.

    Returns
    -------
    Table
        Text in a terminal, HTML in a notebook.
    """
    size = service.container_resource_requirements
    rows = {
        "state": str(service.state),
        "scoring URI": service.scoring_uri or "none yet",
        "asks for a key": "yes" if service.auth_enabled else "no: open to whoever reaches it",
        "models": ", ".join(model.id for model in service.models) or "none",
        "container": f"{size.cpu:g} CPU, {size.memory_in_gb:g} GB of memory" if size else "",
        "created": f"{service.created_time:%Y-%m-%d %H:%M} UTC",
        "description": service.description,
        "tags": _listed(service.tags),
        "error": str(service.error["message"]) if service.error else "",
    }
    return Table(f"Service {service.name}", _filled(rows))


def show_model(model: Model) -> Table:
    """Show a registered model at a glance: its version, what it was made with and from.

    Parameters
    ----------
    model : azureml.core.Model

    Returns
    -------
    Table
        Text in a terminal, HTML in a notebook.
    """
    rows = {
        "version": str(model.version),
        "registered": f"{model.created_time:%Y-%m-%d %H:%M} UTC" if model.created_time else "",
        "description": model.description,
        "framework": " ".join(filter(None, (model.model_framework, model.model_framework_version))),
        "tags": _listed(model.tags),
        **(model.properties or {}),
    }
    return Table(f"Model {model.name}", _filled(rows))


def compare_results(labels: ArrayLike, local: ArrayLike, deployed: ArrayLike) -> Table:
    """Put what a model predicts here beside what the deployed one predicts.

    Parameters
    ----------
    labels : array-like, shape (n,)
        The true classes.
    local, deployed : array-like, shape (n,)
        What the downloaded model predicts, and what `call_service` returned.

    Returns
    -------
    Table
        Both accuracies, on how many samples they disagree, and on which.

    Raises
    ------
    ValueError
        The arrays have not one length, or are empty.

    Examples
    --------
    >>> from mnist_deploy import compare_results
    >>> compare_results([7, 2, 1, 0], local=[7, 2, 1, 6], deployed=[7, 2, 4, 6])
    4 samples
      accuracy of the local model     0.7500
      accuracy of the deployed model  0.5000
      they disagree on                1 sample
      sample 2                        is 1, local 1, deployed 4
    """
    true, here, there = (np.asarray(array).reshape(-1) for array in (labels, local, deployed))
    if not len(true) == len(here) == len(there) > 0:
        raise ValueError(
            f"{len(true)} labels, {len(here)} local and {len(there)} deployed predictions: "
            "expected as many of each, and at least one."
        )
    differing = np.flatnonzero(here != there)
    rows = {
        "accuracy of the local model": f"{np.mean(here == true):.4f}",
        "accuracy of the deployed model": f"{np.mean(there == true):.4f}",
        "they disagree on": _samples(len(differing)),
    }
    for i in differing[:_SHOWN]:
        rows[f"sample {i}"] = f"is {true[i]}, local {here[i]}, deployed {there[i]}"
    if len(differing) > _SHOWN:
        rows["and on"] = f"{_samples(len(differing) - _SHOWN)} more"
    return Table(_samples(len(true)), rows)


def _samples(count: int) -> str:
    return f"{count:,} sample{'' if count == 1 else 's'}"


def _listed(labels: Mapping[str, str] | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in (labels or {}).items())


def _filled(rows: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in rows.items() if value}
