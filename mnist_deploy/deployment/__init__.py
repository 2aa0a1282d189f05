"""Deploy a registered model as a web service, and delete it.

`config` builds the configurations of script, environment and container size; `aci` and `aks` are
the targets. `preflight` checks a deployment before anything is sent, `service` deploys and deletes,
`failure` reports errors. `package` exports a service to any Kubernetes cluster.
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
