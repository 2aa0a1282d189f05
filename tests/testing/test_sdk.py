"""What the kit knows of the SDK's insides is named in one module, and true of this SDK."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from azureml.core import Environment, Model, Webservice
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.model import InferenceConfig
from azureml.exceptions import UserErrorException, WebserviceException

import mnist_deploy as md
from mnist_deploy.testing import mock_workspace, sdk, services

ROOM = Path(sdk.__file__).parent
USES = [
    *[(client, name) for client, names in sdk.REST_CLIENTS.items() for name in names],
    *sdk.SHORTCUTS,
]


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Use all that the mocked workspace simulates, once; the names in the SDK that were used."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "model.pkl").write_bytes(b"content")
    with pytest.MonkeyPatch.context() as patch, mock_workspace() as ws:
        patch.chdir(folder)
        model = Model.register(ws, "model.pkl", "mine", tags={"a": "1"})
        model.update(description="better")
        assert Model(ws, id=model.id).description == "better"
        assert [each.id for each in Model.list(ws, "mine")] == ["mine:1"]
        model.download("out")
        model.delete()
        Environment("mine").register(ws)
        (folder / "score.py").write_text("def init(): ...\ndef run(data): ...\n")
        inference_config = md.build_inference_config(md.fetch_environment(ws))
        deployment = [md.fetch_model(ws)], inference_config, md.build_aci_config()
        ws.cloud.never_finish(service="slow")
        with pytest.raises(Exception, match="exceeded timeout"):
            Model.deploy(ws, "slow", *deployment).wait_for_deployment(timeout_sec=9)
        slept = ws.cloud.clock.slept
        service = Model.deploy(ws, "svc", *deployment)
        service.wait_for_deployment()
        ws.cloud.refuse(502)
        with pytest.raises(Exception, match="502"):
            service.run('{"data": [[0]]}')  # which the SDK repeats after a pause
        Webservice(ws, "svc").delete()
        ComputeTarget.create(ws, "cluster", AksCompute.provisioning_configuration()).delete()
        doubles = {f"{owner.__name__}.{name}": sdk.double_of(owner, name) for owner, name in USES}
        used = {name for name, double in doubles.items() if double.called}
        used |= {"time"} if slept > services.HELD else set()
    return used


@pytest.mark.parametrize("name", [*(f"{owner.__name__}.{name}" for owner, name in USES), "time"])
def test_the_sdk_uses_what_is_replaced(walk, name):
    assert name in walk


PARTS = [
    *(("workspace", name) for name in sdk.WORKSPACE_PARTS),
    *((kind, name) for kind in (sdk.MockedContext, sdk.MockedLogin)
      for name in vars(kind) if "get" in name),
]  # fmt: skip


@pytest.mark.parametrize(("owner", "part"), PARTS, ids=str)
def test_the_sdk_needs_each_part(mocked_workspace, deploy, monkeypatch, owner, part):
    def use(name):
        deploy(mocked_workspace, name)
        for make, configuration in (
            (ComputeTarget.attach, AksCompute.attach_configuration("group", "theirs")),
            (ComputeTarget.create, AksCompute.provisioning_configuration()),
        ):
            made = make(mocked_workspace, f"{name}-{make.__name__}", configuration)
            assert "/None/" not in str(made.cluster_resource_id)

    use("whole")
    if owner == "workspace":
        monkeypatch.setattr(mocked_workspace, part, None)
    else:
        monkeypatch.delattr(owner, part)
    with pytest.raises((AttributeError, TypeError, md.errors.MnistDeployError, AssertionError)):
        use("half")


def test_a_script_is_parsed_once_not_in_each_deployment(mocked_workspace, deploy, monkeypatch):
    deploy(mocked_workspace)
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda *args: parsed.append(args) or parse(*args))
    deploy(mocked_workspace, "again")
    assert not parsed


def test_a_script_that_is_broken_is_parsed_each_time(mocked_workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def init(:\n")
    for _ in range(2):
        with pytest.raises(UserErrorException, match="invalid syntax"):
            InferenceConfig("broken.py", environment=Environment("any"))
    with pytest.raises(WebserviceException, match=r"missing\.py"):
        InferenceConfig("missing.py", environment=Environment("any"))


@pytest.mark.parametrize("file", sorted(ROOM.glob("*.py")), ids=lambda file: file.name)
def test_no_other_module_knows_the_insides(file):
    assert len(list(ROOM.glob("*.py"))) <= 10
    if file.name == "sdk.py":
        return
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("azureml"):
            assert not re.search(r"\._", node.module)
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
            assert isinstance(node.value, ast.Name)
            assert node.value.id in ("self", "WorkspaceMock")
