"""Training clusters (AmlCompute): records of the requested sizes, without machines."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from ..bodies import Document, convert
from ..core.faults import NotSupported
from ..core.records import Compute

KIND = "AmlCompute"
VM_SIZE = "STANDARD_DS3_V2"
GPU_SIZES = re.compile("standard_n", re.IGNORECASE)
IDLE_TIME = "PT120S"  # Azure's default
DESCRIPTION = (
    "A cluster of the local workspace, without machines: each run that is submitted to it is one "
    "process tree of this machine."
)
OWN_SETTINGS = ("withoutEffect", "identity")  # fields of the record that Azure does not have
NODE_STATES = ("idle", "leaving", "preempted", "preparing", "running", "unusable")


class ScaleSettings(Struct, rename="camel"):
    min_node_count: int | None = None
    max_node_count: int | None = None
    node_idle_time_before_scale_down: str | None = None


class Settings(Struct, rename="camel"):
    vm_size: str | None = None
    vm_priority: str | None = None
    scale_settings: ScaleSettings | None = None
    subnet: dict[str, Any] | None = None
    remote_login_port_public_access: str | None = None
    user_account_credentials: dict[str, Any] | None = None
    enable_node_public_ip: bool | None = None


def settings_to_keep(sent: Document) -> Document:
    """The settings of a cluster.

    Raises
    ------
    NotSupported
        For a cluster with GPUs or in a virtual network.
    """
    settings = convert(sent, Settings)
    if GPU_SIZES.match(settings.vm_size or ""):
        raise NotSupported(f"clusters with GPUs (vm_size {settings.vm_size})")
    if settings.subnet:
        raise NotSupported("clusters in a virtual network (vnet_name)")
    scale = settings.scale_settings or ScaleSettings()
    return {
        "vmSize": settings.vm_size or VM_SIZE,
        "vmPriority": settings.vm_priority or "Dedicated",
        "scaleSettings": {
            "minNodeCount": scale.min_node_count or 0,
            "maxNodeCount": scale.max_node_count or 1,
            "nodeIdleTimeBeforeScaleDown": scale.node_idle_time_before_scale_down or IDLE_TIME,
        },
        "withoutEffect": list_options_without_effect(settings),
    }


def list_options_without_effect(settings: Settings) -> list[str]:
    """List the options without effect, by their names in SDK v2, because they require nodes."""
    options = {
        "ssh_settings": settings.user_account_credentials,
        "ssh_public_access_enabled": settings.remote_login_port_public_access == "Enabled",
        "enable_node_public_ip": settings.enable_node_public_ip is False,
    }
    return [name for name, value in options.items() if value]


def describe(compute: Compute) -> str:
    """Describe the cluster, with the requested options that have no effect."""
    ignored = [*compute.settings.get("withoutEffect", [])]
    ignored += ["identity"] if compute.settings.get("identity") else []
    return f"{DESCRIPTION} Without effect here: {', '.join(ignored)}." if ignored else DESCRIPTION


def serialize_settings(compute: Compute) -> Document:
    """The settings and the state of a cluster, all of whose requested nodes are idle.

    Without ``currentNodeCount``, the SDK's ``wait_for_completion`` waits for its whole time.
    """
    count = compute.settings["scaleSettings"]["minNodeCount"]
    return {
        **{name: value for name, value in compute.settings.items() if name not in OWN_SETTINGS},
        "subnet": None,
        "osType": "Linux",
        "currentNodeCount": count,
        "targetNodeCount": count,
        "nodeStateCounts": {f"{state}NodeCount": 0 for state in NODE_STATES}
        | {"idleNodeCount": count},
        "allocationState": "Steady",
        "allocationStateTransitionTime": compute.created,
        "errors": None,
        "remoteLoginPortPublicAccess": "Disabled",
    }
