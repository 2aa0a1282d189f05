"""Deploys the tutorial's model with SDK v1, to a mocked or a local workspace."""

from __future__ import annotations

from azureml.core import Model

import mnist_deploy as md


def prepare(ws, script="score.py", model=None, **aci):
    """The models, the inference config and the ACI config of a deployment."""
    inference_config = md.build_inference_config(md.fetch_environment(ws), script)
    return [model or md.fetch_model(ws)], inference_config, md.build_aci_config(**aci)


def deploy(ws, name="svc", script="score.py", *, model=None, overwrite=False, **aci):
    """Deploy and wait; returns the service."""
    return md.deploy_to_aci(ws, *prepare(ws, script, model, **aci), name, overwrite=overwrite)


def deploy_to_cluster(ws, name, cluster):
    models, inference_config, _ = prepare(ws)
    config = md.build_aks_config(replicas=1)
    return md.deploy_to_aks(ws, models, inference_config, config, cluster, name)


def begin(ws, name="svc", config=None, **options):
    """Start a deployment with the SDK; returns the service without waiting for it."""
    models, inference_config, aci_config = prepare(ws)
    return Model.deploy(ws, name, models, inference_config, config or aci_config, **options)
