"""Deploy a registered model as a web service, and delete it.

`config` says what runs in a service and how large its container is, `aci` and `aks` where;
`preflight` holds what is checked before anything is sent, `service` what all services share.
`package` takes a service to a cluster of one's own.
"""

from .aci import build_aci_config, deploy_to_aci
from .aks import build_aks_config, deploy_to_aks
from .config import build_inference_config
from .package import package_service
from .service import closing_service, delete_service

__all__ = [
    "build_aci_config",
    "build_aks_config",
    "build_inference_config",
    "closing_service",
    "delete_service",
    "deploy_to_aci",
    "deploy_to_aks",
    "package_service",
]
