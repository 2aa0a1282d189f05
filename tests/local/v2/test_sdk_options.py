"""Every constructor argument of both SDKs has an effect, a warning, or an error response.

A new version of an SDK that brings another argument fails here, until that argument is in one of
the three lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from azure.ai.ml import Input, command, entities
from azure.ai.ml.entities import (
    IdentityConfiguration,
    KubernetesOnlineDeployment,
    KubernetesOnlineEndpoint,
    ManagedIdentityConfiguration,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
)
from azure.core.exceptions import HttpResponseError
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, AksWebservice, LocalWebservice
from weights_service import WORKSPACE


@dataclass(frozen=True)
class Options:
    """The arguments of a constructor.

    Attributes
    ----------
    effective : str
        They do here what they do on Azure; among them those that only the SDK reads.
    warned : str
        A warning in the log names them.
    rejected : str
        The call is answered 501 or 400.
    """

    effective: str
    warned: str = ""
    rejected: str = ""


# `location` is replaced by the workspace's and `kind` is not sent: OnlineEndpoint of the SDK.
ENDPOINT = "name tags properties auth_mode description location traffic mirror_traffic kind kwargs"
DEPLOYMENT = (
    "name endpoint_name tags properties description model code_configuration environment "
    "app_insights_enabled request_settings liveness_probe environment_variables "
    "instance_count code_path scoring_script kwargs"
)
SERVICE = (
    "cpu_cores memory_gb tags properties description auth_enabled enable_app_insights "
    "primary_key secondary_key"
)
BATCH_SETTINGS = (
    "mini_batch_size max_concurrency_per_instance output_action output_file_name retry_settings "
    "environment_variables error_threshold logging_level"
)
OPTIONS: dict[Callable, Options] = {
    ManagedOnlineEndpoint: Options(ENDPOINT, "identity public_network_access"),
    KubernetesOnlineEndpoint: Options(f"{ENDPOINT} compute", "identity"),
    ManagedOnlineDeployment: Options(
        f"{DEPLOYMENT} instance_type scale_settings",  # of which there is the default only
        "readiness_probe egress_public_network_access",
        "data_collector private_network_connection model_mount_path",
    ),
    KubernetesOnlineDeployment: Options(
        f"{DEPLOYMENT} resources", "readiness_probe scale_settings instance_type", "data_collector"
    ),
    # `datastore` is where the SDK uploads a build context to.
    entities.Environment: Options(
        "name version description conda_file tags properties datastore kwargs", "image", "build"
    ),
    # `utc_time_created` is not sent.
    entities.Model: Options(
        "name version type path utc_time_created flavors description tags properties stage kwargs",
        rejected="default_deployment_template allowed_deployment_templates",
    ),
    AciWebservice.deploy_configuration: Options(
        SERVICE,
        "location dns_name_label",
        "ssl_enabled ssl_cert_pem_file ssl_key_pem_file ssl_cname collect_model_data "
        "cmk_vault_base_url cmk_key_name cmk_key_version vnet_name subnet_name",
    ),
    AksWebservice.deploy_configuration: Options(
        f"{SERVICE} scoring_timeout_ms replica_max_concurrent_requests max_request_wait_time "
        "num_replicas period_seconds initial_delay_seconds timeout_seconds success_threshold "
        "failure_threshold token_auth_enabled compute_target_name cpu_cores_limit memory_gb_limit",
        "autoscale_enabled autoscale_min_replicas autoscale_max_replicas "
        "autoscale_refresh_seconds autoscale_target_utilization namespace blobfuse_enabled",
        "collect_model_data gpu_cores",
    ),
    # `scoring_uri` and `openapi_uri` are what Azure answers, and not sent.
    entities.BatchEndpoint: Options(
        "name tags properties description location defaults default_deployment_name scoring_uri "
        "openapi_uri kwargs",
        rejected="auth_mode",
    ),
    entities.ModelBatchDeployment: Options(
        "name endpoint_name environment properties model description tags settings compute "
        "code_configuration code_path scoring_script kwargs",
        "resources",
    ),
    entities.ModelBatchDeploymentSettings: Options(
        f"{BATCH_SETTINGS} instance_count kwargs",
    ),
    entities.BatchDeployment: Options(
        f"name endpoint_name description tags properties model code_configuration environment "
        f"compute code_path scoring_script instance_count {BATCH_SETTINGS} kwargs",
        "resources",
    ),
    entities.BatchRetrySettings: Options("max_retries timeout"),
    LocalWebservice.deploy_configuration: Options("port"),
    # A cluster is a name: its sizes are kept, and nothing is as large.
    entities.AmlCompute: Options(
        "name description size tags min_instances max_instances idle_time_before_scale_down tier "
        "kwargs",
        "ssh_public_access_enabled ssh_settings identity enable_node_public_ip",
        "network_settings",
    ),
    # `is_deterministic` is of components, and `parent_job_name` only kept by the SDK.
    command: Options(
        "name description tags properties display_name command experiment_name environment "
        "environment_variables compute inputs outputs timeout code is_deterministic "
        "parent_job_name kwargs",
        "distribution instance_count instance_type locations docker_args shm_size identity "
        "services job_tier priority",
    ),
    entities.Data: Options(
        "name version description tags properties path type kwargs", rejected="auto_delete_setting"
    ),
    # The SDK makes an environment of `runtime` and `conda_file`, and does not send `description`.
    InferenceConfig: Options(
        "entry_script runtime conda_file source_directory description environment",
        "base_image base_image_registry enable_gpu cuda_version",
        "extra_docker_file_steps",
    ),
}
# Taken out of **kwargs.
HIDDEN = {
    ManagedOnlineDeployment: {"private_network_connection", "model_mount_path"},
    KubernetesOnlineDeployment: {"data_collector"},
    entities.Data: {"auto_delete_setting"},
}


@pytest.mark.parametrize("constructor", OPTIONS, ids=lambda each: each.__qualname__)
def test_each_constructor_argument_is_in_exactly_one_list(constructor):
    found = set(inspect.signature(constructor).parameters) | HIDDEN.get(constructor, set())
    options = OPTIONS[constructor]
    listed = f"{options.effective} {options.warned} {options.rejected}".split()
    assert sorted(listed) == sorted(found - {"self", "args"})


def test_warned_options_of_sdk_v2_are_in_the_log(client, deploy, model, environment, folder):
    """ManagedOnlineEndpoint, ManagedOnlineDeployment and Environment."""
    identity = IdentityConfiguration(
        type="user_assigned",
        user_assigned_identities=[ManagedIdentityConfiguration(resource_id="/subscriptions/s/u")],
    )
    made = client.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(
            name="warned", identity=identity, public_network_access="disabled", location="west"
        )
    ).result()
    assert (made.identity.type, made.public_network_access) == ("user_assigned", "Disabled")
    image = client.environments.create_or_update(entities.Environment(name="own", image="own/i:1"))
    deploy(
        "warned",
        environment=image.id,
        egress_public_network_access="disabled",
        readiness_probe=entities.ProbeSettings(period=5),
    )
    log = client.online_deployments.get_logs("blue", "warned", lines=1000)
    client.online_endpoints.begin_delete("warned").result()
    warned = OPTIONS[ManagedOnlineEndpoint].warned, OPTIONS[ManagedOnlineDeployment].warned
    for option in " ".join(warned).split():
        assert f"{option}: " in log
    assert "not in the image own/i:1" in log


def test_warned_options_of_kubernetes_are_in_the_log(client, model, environment, folder):
    """KubernetesOnlineDeployment: ``instance_type`` names a custom resource of the cluster.

    how-to-manage-kubernetes-instance-types. The compute is a placeholder of a notebook of
    Microsoft's, kubernetes-online-endpoints-simple-deployment.
    """
    client.begin_create_or_update(
        KubernetesOnlineEndpoint(name="warned-k8s", compute="<COMPUTE_NAME>")
    ).result()
    deployment = KubernetesOnlineDeployment(
        name="blue",
        endpoint_name="warned-k8s",
        model=model.id,
        environment=environment.id,
        code_configuration=entities.CodeConfiguration(
            code=str(folder / "code"), scoring_script="score.py"
        ),
        instance_count=1,
        instance_type="gpuinstance",
    )
    client.begin_create_or_update(deployment).result()
    log = client.online_deployments.get_logs("blue", "warned-k8s", lines=1000)
    client.online_endpoints.begin_delete("warned-k8s").result()
    assert "instance_type: gpuinstance is not used" in log
    assert "its conda file lacks azureml-inference-server-http" in log


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("private_network_connection", True),
        ("model_mount_path", "/models"),
        (
            "data_collector",
            entities.DataCollector(
                collections={"model_inputs": entities.DeploymentCollection(enabled="true")}
            ),
        ),
    ],
)
def test_rejected_options_of_a_deployment_are_named(deploy, shared, option, value):
    with pytest.raises(Exception, match=f"does not support a deployment with {option}"):
        deploy("shared", "rejected", properties={}, **{option: value})


def test_rejected_options_of_a_model_are_named(client, folder):
    template = {"asset_id": "azureml://registries/r/deploymentTemplates/t/versions/1"}
    requested = entities.Model(
        name="templated", path=str(folder / "weights"), default_deployment_template=template
    )
    with pytest.raises(Exception, match="a model with default_deployment_template"):
        client.models.create_or_update(requested)


def warnings_of(call, run_id: str) -> list[str]:
    run = call("GET", f"/history/v1.0{WORKSPACE}/runs/{run_id}").json()
    return [each["message"] for each in run["warnings"]]


@pytest.mark.processes
def test_warned_options_of_a_command_job_are_warnings_of_its_run(client, call, environment):
    client.compute.begin_create_or_update(entities.AmlCompute(name="warned-jobs")).result()
    job = command(
        command="true",
        environment=environment,
        compute="warned-jobs",
        instance_count=2,
        instance_type="Standard_D2_v2",
        locations=["westus"],
        docker_args="--cpus 1",
        shm_size="4g",
        identity=ManagedIdentityConfiguration(),
        services={"lab": entities.JupyterLabJobService()},
        job_tier="spot",
        priority="low",
        distribution={"type": "mpi", "process_count_per_instance": 2},
    )
    submitted = client.jobs.create_or_update(job)
    found = "\n".join(warnings_of(call, submitted.name))
    for option in (
        "resources: 2 instances", "resources.instance_type: ", "resources.locations: ",
        "resources.docker_args: ", "resources.shm_size: ", "identity: ", "services: lab are not",
        "queue_settings: ", "distribution: ",
    ):  # fmt: skip
        assert option in found


def test_options_of_a_cluster_without_effect_are_in_its_description(client):
    """The only text about a cluster that the SDK returns."""
    made = client.compute.begin_create_or_update(
        entities.AmlCompute(
            name="warned-cluster",
            description="mine",
            min_instances=1,
            max_instances=3,
            idle_time_before_scale_down=60,
            tier="low_priority",
            ssh_public_access_enabled=True,
            ssh_settings=entities.AmlComputeSshSettings(admin_username="u", admin_password="p"),
            identity=IdentityConfiguration(type="system_assigned"),
            enable_node_public_ip=False,
        )
    ).result()
    assert made.description.startswith("mine ")
    for option in OPTIONS[entities.AmlCompute].warned.split():
        assert option in made.description
    assert (made.min_instances, made.max_instances, made.tier) == (1, 3, "low_priority")
    plain = client.compute.begin_create_or_update(entities.AmlCompute(name="plain")).result()
    assert "Without effect" not in plain.description


def test_rejected_options_of_clusters_data_and_batch_endpoints_are_named(client, tmp_path):
    network = entities.NetworkSettings(vnet_name="v", subnet="/subscriptions/s/subnets/n")
    cluster = entities.AmlCompute(name="in-vnet", network_settings=network)
    with pytest.raises(HttpResponseError, match=r"virtual network \(vnet_name\)"):
        client.compute.begin_create_or_update(cluster).result()
    (tmp_path / "a.csv").write_text("1")
    data = entities.Data(
        name="kept",
        path=str(tmp_path / "a.csv"),
        type="uri_file",
        auto_delete_setting={"condition": "created_greater_than", "value": "30d"},
    )
    with pytest.raises(HttpResponseError, match="a data asset with auto_delete_setting"):
        client.data.create_or_update(data)
    endpoint = entities.BatchEndpoint(name="keyed", auth_mode="key")
    with pytest.raises(HttpResponseError, match="expected aad_token, the only mode"):
        client.batch_endpoints.begin_create_or_update(endpoint).result()


@pytest.mark.processes
def test_resources_of_a_batch_deployment_are_warnings_of_its_jobs(
    client, call, folder, environment
):
    client.compute.begin_create_or_update(entities.AmlCompute(name="warned-batch")).result()
    endpoint = entities.BatchEndpoint(name="warned-batch")
    client.batch_endpoints.begin_create_or_update(endpoint).result()
    deployment = entities.ModelBatchDeployment(
        name="only",
        endpoint_name="warned-batch",
        environment=environment,
        code_configuration=entities.CodeConfiguration(str(folder / "code"), "score.py"),
        compute="warned-batch",
        resources=entities.ResourceConfiguration(
            instance_count=1, instance_type="Standard_D2_v2", properties={"a": "b"}
        ),
        settings=entities.ModelBatchDeploymentSettings(mini_batch_size=1),
    )
    client.batch_deployments.begin_create_or_update(deployment).result()
    job = client.batch_endpoints.invoke(
        endpoint_name="warned-batch",
        deployment_name="only",
        input=Input(type="uri_folder", path=str(folder / "weights")),
    )
    found = warnings_of(call, job.name)
    assert any(each.startswith("resources.instance_type: ") for each in found)
    assert any(each.startswith("resources.properties: ") for each in found)
    client.batch_endpoints.begin_delete("warned-batch").result()
