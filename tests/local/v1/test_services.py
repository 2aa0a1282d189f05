"""Web services, deployed and called by the genuine SDK."""

from __future__ import annotations

import json
import re
import sys
import time

import msgspec
import psutil
import pytest
import requests
from azureml.core import Environment, Model
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, Webservice
from azureml.exceptions import WebserviceException
from weights_service import SCRIPT, make_inference_config

from mnist_deploy.local.v1.environments import EnvironmentDefinition
from mnist_deploy.local.v1.option_warnings import list_environment_warnings

ROWS = json.dumps({"data": [[1, 2, 3], [0, 0, 1]]})
SUMS = [321.0, 100.0]

VERSION_SCRIPT = "def init(): pass\ndef run(raw): return {answer!r}\n"


def small(**more):
    return AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1, **more)


@pytest.fixture
def deploy(local_ws, registered, tmp_path):
    """Deploy a service with the given script, wait, and delete it in the end."""
    deployed = []

    def do(name, script=SCRIPT, models=(registered,), *, config=None, wait=True, **more):
        service = Model.deploy(
            local_ws,
            name,
            list(models),
            make_inference_config(tmp_path, script),
            config or small(),
            **more,
        )
        deployed.append(service)
        if wait:
            service.wait_for_deployment()
        return service

    yield do
    for service in deployed:
        service.delete()


# A service that the tests share and do not change.


def test_service_has_the_requested_properties(local_ws, service):
    seen = Webservice(local_ws, "shared")
    assert isinstance(seen, AciWebservice)
    assert (seen.state, seen.compute_type, seen.auth_enabled) == ("Healthy", "ACI", True)
    assert (seen.tags, seen.properties["made"]) == ({"data": "weights"}, "once")
    assert (seen.description, seen.environment.name) == ("shared", "weights-env")
    assert [model.id for model in seen.models] == ["weights:1"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/score", seen.scoring_uri)
    resources = seen.container_resource_requirements
    assert (resources.cpu, resources.memory_in_gb) == (1, 1)
    assert seen.created_time is not None


def test_service_scores_serves_its_swagger_and_logs_the_prints_of_its_script(service):
    assert service.run(ROWS) == SUMS
    keys = {"Authorization": f"Bearer {service.get_keys()[0]}"}
    assert "/score" in requests.get(service.swagger_uri, headers=keys, timeout=10).json()["paths"]
    log = service.get_logs()
    assert "weights are loaded" in log
    assert "POST /score 200" in log
    assert len(service.get_logs(num_lines=2).splitlines()) == 2


def test_request_without_a_valid_key_is_rejected(service):
    def status(**headers) -> int:
        return requests.post(service.scoring_uri, ROWS, headers=headers, timeout=10).status_code

    primary, secondary = service.get_keys()
    assert primary != secondary
    assert status(Authorization=f"Bearer {primary}") == 200
    assert status(Authorization=f"Bearer {secondary}") == 200
    for wrong in ("", "Bearer ", "Bearer x", primary[:-1], f"bearer {primary}x", "Bearer é"):
        assert status(Authorization=wrong.encode()) == 401
    rejected = requests.post(service.scoring_uri, ROWS, timeout=10)
    assert rejected.status_code == 401
    assert "get_keys()" in rejected.json()["message"]
    assert primary not in rejected.text + service.get_logs() + repr(service) + str(vars(service))


def test_services_are_listed_by_tags_properties_models_and_compute_type(local_ws, service):
    def names(**query) -> list[str]:
        return [found.name for found in Webservice.list(local_ws, **query)]

    assert "shared" in names()
    assert names(tags=[["data", "weights"]], compute_type="ACI") == ["shared"]
    assert names(tags=["data"], properties=["made"]) == ["shared"]
    assert names(model_id="weights:1") == names(model_name="weights") == ["shared"]
    assert names(tags=[["data", "else"]]) == names(model_name="else") == []
    assert names(compute_type="AKS") == names(image_name="x") == names(image_digest="x") == []


# Services that a test creates, updates and deletes.


def test_wait_for_deployment_shows_progress_and_warnings(local_ws, registered, tmp_path, capsys):
    config = make_inference_config(tmp_path, packages=("scikit-learn==0.22.1",))
    config.environment.docker.base_image = "mine/image:1"
    requested = small(location="westeurope", dns_name_label="digits")
    service = Model.deploy(local_ws, "old-pins", [registered], config, requested)
    service.wait_for_deployment(show_output=True)
    shown, log = capsys.readouterr().out, service.get_logs()
    assert service.run(ROWS) == SUMS
    service.delete()
    assert "Succeeded" in shown
    for note in (
        "scikit-learn: required ==0.22.1, installed",
        "on Azure the image would have scikit-learn ==0.22.1",
        "not in westeurope",
        "dns_name_label: no DNS name digits is created",
        "mine/image:1",
        "lacks azureml-defaults",
    ):
        assert note in shown
        assert note in log


def test_deleted_service_refuses_connections(local_ws, deploy):
    service = deploy("short-lived", config=small(auth_enabled=True))
    service.delete()
    with pytest.raises(requests.ConnectionError):
        requests.post(service.scoring_uri, ROWS, timeout=10)
    assert "short-lived" not in [found.name for found in Webservice.list(local_ws)]
    service.delete()  # as on Azure, twice is no error


def test_failed_init_is_reported_within_seconds_with_its_traceback(local_ws, deploy):
    script = "def init():\n    raise LookupError('no weights today')\ndef run(raw): pass\n"
    began = time.monotonic()
    service = deploy("failing", script, wait=False)
    with pytest.raises(WebserviceException, match="LookupError: no weights today") as raised:
        service.wait_for_deployment()
    assert time.monotonic() - began < 20
    assert "score_weights.py" in str(raised.value)
    assert "UserScriptException" not in str(raised.value)  # the server's own, around it
    assert service.state == "Failed"
    assert "Traceback" in service.get_logs()
    assert "LookupError: no weights today" in service.get_logs()
    repaired = deploy("failing", overwrite=True)
    assert repaired.run(ROWS) == SUMS


@pytest.mark.processes
@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
        ("def init(): raise SystemExit\ndef run(raw): pass\n", "SystemExit"),
        ("def init(): pass\n", "does not have a run"),
        ("import os\ndef init(): os._exit(5)\ndef run(raw): pass\n", "status 5"),
    ],
)
def test_script_that_cannot_run_is_reported(deploy, script, complaint):
    service = deploy("cannot-run", script, wait=False)
    with pytest.raises(WebserviceException, match=complaint):
        service.wait_for_deployment()


def test_overwritten_service_keeps_address_and_keys(deploy):
    def deployed(answer: int, **more):
        script, config = VERSION_SCRIPT.format(answer=answer), small(auth_enabled=True)
        service = deploy("again", script, config=config, **more)
        return service.run("{}"), (service.scoring_uri, service.get_keys())

    first, second = deployed(1), deployed(2, overwrite=True)
    assert (first[0], second[0]) == (1, 2)
    assert first[1] == second[1]


def test_source_directory_is_uploaded_with_all_its_files(local_ws, registered, tmp_path):
    source = tmp_path / "source"
    (source / "src").mkdir(parents=True)
    (source / "settings.json").write_text('{"factor": 2}')
    (source / "src" / "doubling.py").write_text("def double(x): return 2 * x\n")
    (source / "src" / "score.py").write_text(
        "import json, os, sys\n"
        "here = os.path.dirname(os.path.abspath(__file__))\n"
        "sys.path.insert(0, here)\n"
        "from doubling import double\n"
        "def init(): pass\n"
        "def run(raw):\n"
        "    with open(os.path.join(here, '..', 'settings.json')) as file:\n"
        "        return [double(json.load(file)['factor']), os.environ['GREETING']]\n"
    )
    environment = Environment("weights-env")
    environment.python.user_managed_dependencies = True
    environment.environment_variables = {"GREETING": "hello"}
    config = InferenceConfig("src/score.py", source_directory=str(source), environment=environment)
    service = Model.deploy(local_ws, "sources", [registered], config, small())
    service.wait_for_deployment()
    assert service.run("{}") == [4, "hello"]
    service.delete()


@pytest.mark.processes
def test_cpu_cores_set_the_number_of_threads(deploy):
    script = """
import os
def init(): pass
def run(raw): return [os.environ["OMP_NUM_THREADS"], os.getppid()]
"""
    threads, parent = deploy("one-core", script).run("{}")
    two = deploy("two-cores", script, config=AciWebservice.deploy_configuration(1.5, 1))
    assert (threads, two.run("{}")[0]) == ("1", "2")
    if sys.platform == "linux":  # nothing in its variables keeps it from being a fork
        assert "mnist_deploy.local.scoring.fork_server" in psutil.Process(parent).cmdline()


def test_given_and_regenerated_keys_are_authorized_at_once(deploy, call, mms):
    own = {"primary_key": "first-of-mine", "secondary_key": "second-of-mine"}
    service = deploy("keys", config=small(auth_enabled=True, **own))
    assert service.get_keys() == ("first-of-mine", "second-of-mine")
    service.regen_key("Primary")
    primary, secondary = service.get_keys()
    assert (primary != "first-of-mine", secondary) == (True, "second-of-mine")
    mine = {"keyType": "Secondary", "keyValue": "mine-from-now-on"}  # the SDK sleeps 5 s for it
    assert call("POST", f"{mms}/services/keys/regenerateKeys", json=mine).status_code == 202
    assert service.get_keys() == (primary, "mine-from-now-on")

    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return requests.post(service.scoring_uri, ROWS, headers=headers, timeout=10).status_code

    keys = ("first-of-mine", "second-of-mine", primary, "mine-from-now-on")
    assert [status(key) for key in keys] == [401, 401, 200, 200]
    assert service.run(ROWS) == SUMS


def test_update_of_labels_and_keys_keeps_the_container(local_ws, deploy):
    service = deploy("changing", config=small(tags={"old": "1"}, properties={"made": "once"}))
    log = service.get_logs()
    service.update(tags={"new": "2"}, description="changed", auth_enabled=True, ssl_enabled=False,
                   enable_app_insights=False)  # fmt: skip
    service.wait_for_deployment()
    seen = Webservice(local_ws, "changing")
    assert (seen.tags, seen.description, seen.auth_enabled) == ({"new": "2"}, "changed", True)
    assert requests.post(seen.scoring_uri, ROWS, timeout=10).status_code == 401
    seen.update(auth_enabled=False)
    assert requests.post(seen.scoring_uri, ROWS, timeout=10).status_code == 200
    assert service.get_logs().count("weights are loaded") == log.count("weights are loaded") == 1
    seen.add_properties({"more": "3"})
    assert Webservice(local_ws, "changing").properties == {"made": "once", "more": "3"}
    with pytest.raises(WebserviceException, match="can be added, but not changed"):
        seen.add_properties({"made": "twice"})
    with pytest.raises(WebserviceException, match="501"):
        seen.update(ssl_enabled=True)
    assert Webservice(local_ws, "changing").properties["made"] == "once"


@pytest.mark.processes
def test_update_replaces_script_and_model(local_ws, deploy, tmp_path):
    service = deploy("renewed")
    (tmp_path / "weights.txt").write_text("1 1 1")
    flat = Model.register(local_ws, "weights.txt", "flat-weights")
    service.update(models=[flat], inference_config=make_inference_config(tmp_path))
    service.wait_for_deployment()
    assert service.run(ROWS) == [6.0, 1.0]
    assert [model.name for model in service.models] == ["flat-weights"]


# Rejected requests.


@pytest.mark.parametrize("more", [{"ssl_enabled": True, "ssl_cert_pem_file": "c.pem",
                                   "ssl_key_pem_file": "c.pem", "ssl_cname": "x"},
                                  {"collect_model_data": True},
                                  {"vnet_name": "a", "subnet_name": "b"}])  # fmt: skip
def test_unsupported_container_option_is_rejected_by_name(deploy, tmp_path, more):
    (tmp_path / "c.pem").write_text("pem")
    with pytest.raises(WebserviceException, match=f"a web service with {next(iter(more))}"):
        deploy("too-much", config=small(**more))


@pytest.mark.parametrize(
    ("definition", "note"),
    [
        ({"docker": {"baseDockerfile": "FROM x"}, "python": {"userManagedDependencies": True}},
         "Dockerfile"),
        ({"docker": {"baseImage": "mine"}, "python": {"userManagedDependencies": True}}, "mine"),
        ({"python": {"userManagedDependencies": True}}, "user_managed_dependencies"),
        ({"docker": {"baseImage": "mcr.microsoft.com/azureml/x"}}, None),
    ],
)  # fmt: skip
def test_environment_warnings_name_the_ignored_option(definition, note):
    notes = list(list_environment_warnings(msgspec.convert(definition, EnvironmentDefinition)))
    assert len(notes) == (note is not None)
    assert all(note in each for each in notes)


def test_key_that_no_header_can_carry_is_rejected(deploy, service, call, mms):
    with pytest.raises(WebserviceException, match="ASCII"):
        deploy("odd-key", config=small(auth_enabled=True, primary_key="schlüssel"))
    odd = {"keyType": "Primary", "keyValue": "two words"}
    answer = call("POST", f"{mms}/services/shared/regenerateKeys", json=odd)
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidKey")


@pytest.mark.parametrize(
    ("requested", "code"),
    [
        *(({"containerResourceRequirements": wanted}, "InvalidResources")
          for wanted in ({"cpu": 0}, {"memoryInGB": -1}, {"cpu": 4.1}, {"memoryInGB": 17})),
        *(({"name": name}, "InvalidServiceName")
          for name in ("", "../x", "A", "1a", "a-", "a" * 33, "a/b", "a\n")),
        ({"name": None}, "InvalidBody"),
        ({"containerResourceRequirements": {"cpu": "x"}}, "InvalidBody"),
        ({"kvTags": {"a": []}}, "InvalidBody"),
    ],
)  # fmt: skip
def test_invalid_service_request_is_rejected_with_its_code(call, mms, requested, code):
    answer = call(
        "POST", f"{mms}/services", json={"name": "odd", "computeType": "ACI", **requested}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, code)
