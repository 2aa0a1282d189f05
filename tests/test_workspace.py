"""Which workspace is chosen, what a wrong config.json says, and who logs in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from unittest.mock import create_autospec

import pytest
from azureml.core import Workspace, authentication
from azureml.exceptions import (
    AuthenticationException,
    ProjectSystemException,
    UserErrorException,
)

import mnist_deploy
from mnist_deploy import connect_workspace, sdk
from mnist_deploy import workspace as workspace_room
from mnist_deploy.errors import ConfigError, WorkspaceError
from mnist_deploy.local.discovery import CLOUD
from mnist_deploy.workspace import find_config, read_config

FIELDS = {
    "subscription_id": "11111111-2222-3333-4444-555555555555",
    "resource_group": "my-group",
    "workspace_name": "my-workspace",
}
SECRET = "s3cret-that-nobody-may-see"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """In a folder of its own, with nobody logged in and nobody there."""
    monkeypatch.chdir(tmp_path)
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "CI", "MSI_ENDPOINT",
                 "IDENTITY_ENDPOINT", "MNIST_DEPLOY_UNATTENDED",
                 "AZUREML_CURRENT_CLOUD"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(workspace_room, "_COMPUTE_INSTANCE", tmp_path / ".nbvm")


@pytest.fixture
def azure(monkeypatch):
    """The SDK's way to Azure, autospecced: `Workspace.get` and the four log-ins."""
    get = create_autospec(Workspace.get)
    monkeypatch.setattr(Workspace, "get", get)
    for name in (
        "ServicePrincipalAuthentication",
        "MsiAuthentication",
        "AzureCliAuthentication",
        "InteractiveLoginAuthentication",
    ):
        monkeypatch.setattr(authentication, name, create_autospec(getattr(authentication, name)))
    return get


def write_config(path, content=None, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(FIELDS | changes) if content is None else content)
    return path


# Which one


@pytest.fixture
def local(ws, workspace_home, monkeypatch):
    """Where the local workspace of all tests is the one that is found."""
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(workspace_home))
    return workspace_home


def test_without_a_config_it_is_the_local_one_and_says_so(local, capsys):
    found = connect_workspace()
    assert type(found) is Workspace
    assert (found.name, found.resource_group) == ("local", "local")
    where = "no config.json in this folder or above it"
    kept = f"registered models are kept in {local}"
    page = "To look at it in the browser: python -m mnist_deploy.local portal"
    assert capsys.readouterr().out == f"Local workspace ({where}); {kept}.\n{page}\n"


def test_beside_a_config_it_is_local_if_asked_for_and_inside_exec(
    local, tmp_path, monkeypatch, capsys
):
    write_config(tmp_path / "config.json")
    assert connect_workspace(local=True).name == "local"
    assert "Local workspace (as asked for)" in capsys.readouterr().out
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", CLOUD)
    assert connect_workspace().name == "local"


@pytest.mark.parametrize("place", ["", ".azureml", "aml_config", "..", "../.azureml"])
def test_a_config_means_azure_wherever_the_sdk_would_find_it(
    azure, tmp_path, monkeypatch, capsys, place
):
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    file = write_config(folder / place / "config.json").resolve()
    assert connect_workspace() is azure.return_value
    azure.assert_called_once_with(
        FIELDS["workspace_name"],
        auth=authentication.AzureCliAuthentication.return_value,
        subscription_id=FIELDS["subscription_id"],
        resource_group=FIELDS["resource_group"],
    )
    shown = re.search(r"Azure workspace 'my-workspace' \(config: (.+)\)", capsys.readouterr().out)
    assert os.path.samefile(shown[1], file)


@pytest.mark.parametrize("start", ["", "sub/folder"])
def test_the_same_file_is_found_as_by_the_sdk(azure, tmp_path, monkeypatch, start):
    """Of several: `from_config` of the SDK is the judge."""
    for i, place in enumerate(["", ".azureml", "sub", "sub/folder/aml_config"]):
        write_config(tmp_path / place / "config.json", workspace_name=f"workspace-{i}")
    monkeypatch.chdir(tmp_path / start)
    Workspace.from_config(auth=object())
    expected = azure.call_args.args[0]
    connect_workspace()
    assert azure.call_args.args[0] == expected


@pytest.mark.parametrize("named", ["config.json", ".", ".azureml", "else/where.json"])
def test_a_config_can_be_named(azure, tmp_path, named):
    write_config(tmp_path / ".azureml" / "config.json")
    write_config(tmp_path / "else" / "where.json")
    if named == "config.json":
        write_config(tmp_path / "config.json")
    assert connect_workspace(named) is azure.return_value


def test_what_is_asked_for_and_not_there_is_not_replaced_by_another(tmp_path):
    """Neither by the local workspace, nor by a config.json above the folder that is named."""
    with pytest.raises(ConfigError, match="Download yours from the Azure portal"):
        connect_workspace(local=False)
    write_config(tmp_path / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json at empty\. Expected the file, or a f"):
        connect_workspace("empty")
    with pytest.raises(ConfigError, match=r"no config\.json at nowhere\.json"):
        connect_workspace("nowhere.json", local=False)
    for azure in ({"config": "config.json"}, {"auth": object()}):
        with pytest.raises(ValueError, match="config and a log-in are for Azure"):
            connect_workspace(**azure, local=True)


def test_a_log_in_of_ones_own_is_taken_and_means_azure(azure, tmp_path):
    mine = create_autospec(authentication.AbstractAuthentication, instance=True)
    with pytest.raises(ConfigError, match="Download yours from the Azure portal"):
        connect_workspace(auth=mine)
    write_config(tmp_path / "config.json")
    assert connect_workspace(auth=mine) is azure.return_value
    assert azure.call_args.kwargs["auth"] is mine
    authentication.AzureCliAuthentication.assert_not_called()


# What is wrong with it


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "holds no JSON object"),
        ("null", "holds no JSON object"),
        ("{}", "the field 'subscription_id' is not filled in"),
        (json.dumps(FIELDS | {"resource_group": ""}), "the field 'resource_group' is not"),
        (json.dumps(FIELDS | {"resource_group": None}), "the field 'resource_group' is not"),
        (json.dumps(FIELDS | {"workspace_name": "<my-ws>"}), "the field 'workspace_name' is not"),
        (json.dumps(FIELDS | {"workspace_name": ["a"]}), "the field 'workspace_name' is not"),
    ],
)
def test_a_wrong_config_names_file_and_field_and_nothing_else_is_tried(
    azure, tmp_path, content, said
):
    file = write_config(tmp_path / "config.json", content)
    with pytest.raises(ConfigError) as raised:
        connect_workspace()
    assert said in str(raised.value)
    assert str(file) in str(raised.value)
    assert "local=True" in str(raised.value)
    azure.assert_not_called()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_editor_may_have_saved_it(tmp_path, encoding):
    file, content = tmp_path / "config.json", FIELDS | {"resource_group": " größe "}
    file.write_text(json.dumps(content, ensure_ascii=False), encoding)
    assert read_config(file) == (FIELDS["subscription_id"], "größe", "my-workspace")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    file = write_config(tmp_path / "config.json")
    if os.geteuid() != 0:  # root may read anything
        file.chmod(0)
        with pytest.raises(ConfigError, match="Permission denied"):
            connect_workspace()

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    for asked, said in (("read_bytes", "cannot be read"), ("is_file", "cannot be searched for")):
        monkeypatch.setattr(type(file), asked, refuse)
        with pytest.raises(ConfigError, match=f"{said}: .*Permission denied"):
            connect_workspace()


def test_a_folder_of_that_name_is_no_config(tmp_path):
    (tmp_path / "config.json").mkdir()
    assert find_config() is None
    with pytest.raises(ConfigError, match=r"no config\.json at config\.json"):
        find_config("config.json")


# A workspace that cannot be reached


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ProjectSystemException("Workspace not found."), "Check workspace_name and resource_group"),
        (
            UserErrorException("You don't have access to 1111 subscription, please check"),
            "Check subscription_id in that file",
        ),
        (
            ProjectSystemException(
                '{"error": {"code": "AuthorizationFailed", "message": "The client does not have '
                "authorization over scope '/subscriptions/1/resourceGroups/g'.\"}}"
            ),
            "does not have authorization over scope '/subscriptions/1/resourceGroups/g'. "
            "Check the network, and your access",
        ),
        (ConnectionError("no route"), "no route. Check the network, and your access"),
    ],
)
def test_unreachable_says_why_and_which_field(azure, tmp_path, error, said):
    file = write_config(tmp_path / "config.json")
    azure.side_effect = error
    with pytest.raises(WorkspaceError) as raised:
        connect_workspace()
    message = str(raised.value)
    assert message.startswith(f"The workspace 'my-workspace' that {file} names cannot be reached: ")
    assert said in message
    assert "\n" not in message
    assert message.endswith("Or use connect_workspace(local=True).")


def test_a_wrong_subscription_as_the_genuine_sdk_tells_it(ws, tmp_path, monkeypatch):
    """Its own check, against subscriptions that the local workspace lists."""
    write_config(tmp_path / "config.json")
    monkeypatch.setattr(workspace_room, "choose_authentication", lambda: ws._auth_object)
    with pytest.raises(WorkspaceError, match=r"don't have access to 1111.*Check subscription_id"):
        connect_workspace()


def test_azure_that_never_answers_is_not_waited_for(azure, tmp_path, monkeypatch):
    write_config(tmp_path / "config.json")
    never = threading.Event()
    azure.side_effect = lambda *_, **__: never.wait(60)
    monkeypatch.setattr(sdk, "ANSWER_LIMIT", 0.2)
    with pytest.raises(WorkspaceError, match=r"no answer within 0\.2 s"):
        connect_workspace()
    never.set()


def set_principal(monkeypatch, *values: str) -> None:
    for name, value in zip(workspace_room._SERVICE_PRINCIPAL, values, strict=True):
        monkeypatch.setenv(name, value)


def test_azure_without_a_network_for_real(tmp_path, monkeypatch, capfd):
    """The genuine service principal, and a proxy that refuses: quick, clear, and no secret."""
    set_principal(monkeypatch, "tenant", "client", SECRET)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    write_config(tmp_path / "config.json")
    began = time.monotonic()
    with pytest.raises(WorkspaceError, match="cannot be reached") as raised:
        connect_workspace()
    assert time.monotonic() - began < 60
    seen = f"{raised.value} {raised.value.__cause__!r} {capfd.readouterr()}"
    assert SECRET not in seen


# Who logs in


def test_a_service_principal_comes_first(azure, monkeypatch):
    set_principal(monkeypatch, "tenant", "client", SECRET)
    principal = authentication.ServicePrincipalAuthentication
    assert workspace_room.choose_authentication() is principal.return_value
    principal.assert_called_once_with("tenant", "client", SECRET)
    authentication.AzureCliAuthentication.assert_not_called()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_half_a_service_principal_is_refused_by_name(azure, monkeypatch, missing):
    set_principal(monkeypatch, *("" if i == missing else SECRET for i in range(3)))
    name = workspace_room._SERVICE_PRINCIPAL[missing]
    with pytest.raises(WorkspaceError, match=f"{name} is not set") as raised:
        workspace_room.choose_authentication()
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("announced_by", ["MSI_ENDPOINT", "IDENTITY_ENDPOINT", "file"])
@pytest.mark.parametrize("client", [None, "of-an-identity"])
def test_then_a_managed_identity_if_the_machine_announces_one(
    azure, monkeypatch, announced_by, client
):
    if announced_by == "file":
        workspace_room._COMPUTE_INSTANCE.touch()
    else:
        monkeypatch.setenv(announced_by, "http://127.0.0.1:9")
    if client:
        monkeypatch.setenv("AZURE_CLIENT_ID", client)
    identity = authentication.MsiAuthentication
    assert workspace_room.choose_authentication() is identity.return_value
    identity.assert_called_once_with(identity_config={"client_id": client} if client else None)
    identity.return_value.get_authentication_header.assert_called_once_with()
    authentication.AzureCliAuthentication.assert_not_called()


@pytest.mark.parametrize("announced", [False, True])
def test_then_azure_cli_if_somebody_is_logged_in(azure, monkeypatch, announced):
    """No address is asked for an identity that nobody announced; one may give no token."""
    identity = authentication.MsiAuthentication
    identity.return_value.get_authentication_header.side_effect = ConnectionError("nobody there")
    if announced:
        monkeypatch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9")
    cli = authentication.AzureCliAuthentication.return_value
    assert workspace_room.choose_authentication() is cli
    cli.get_authentication_header.assert_called_once_with()
    assert identity.called == announced
    authentication.InteractiveLoginAuthentication.assert_not_called()


@pytest.fixture(params=[True, False], ids=["az installed", "no az"])
def no_cli(azure, request) -> None:
    cli = authentication.AzureCliAuthentication
    told = AuthenticationException("Please run 'az login'")
    (cli.return_value.get_authentication_header if request.param else cli).side_effect = told


def test_then_a_person_if_one_is_there(no_cli, monkeypatch):
    monkeypatch.setattr(workspace_room, "somebody_is_there", lambda: True)
    person = authentication.InteractiveLoginAuthentication
    assert workspace_room.choose_authentication() is person.return_value
    person.side_effect = AuthenticationException("The browser was closed")
    with pytest.raises(WorkspaceError, match=r"failed: The browser was closed\. Try again"):
        workspace_room.choose_authentication()


def test_nobody_is_asked_where_nobody_is(no_cli, azure, monkeypatch, tmp_path):
    """Every log-in that was tried is told, also an identity that gave no token."""
    identity = authentication.MsiAuthentication.return_value
    identity.get_authentication_header.side_effect = ConnectionError("nobody there")
    monkeypatch.setenv("CI", "true")
    write_config(tmp_path / "config.json")
    cli = "Azure CLI: Please run 'az login'.)"
    for announced, tried in ((None, f"({cli}"), ("x", f"(Managed identity: nobody there. {cli}")):
        if announced:
            monkeypatch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(WorkspaceError) as raised:
            connect_workspace()
        for told in (*workspace_room._SERVICE_PRINCIPAL, "az login", tried):
            assert told in str(raised.value)
    authentication.InteractiveLoginAuthentication.assert_not_called()
    azure.assert_not_called()


def test_the_genuine_azure_cli_login_is_quick_and_quiet_where_it_is_missing(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(workspace_room, "somebody_is_there", lambda: False)
    began = time.monotonic()
    with pytest.raises(WorkspaceError, match=r"Azure CLI: .*az"):
        workspace_room.choose_authentication()
    assert time.monotonic() - began < 30
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("terminal", "variables", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (None, {}, False),
        (True, {"CI": "true"}, False),
        (True, {"MNIST_DEPLOY_UNATTENDED": "1"}, False),
    ],
)
def test_somebody_is_there_in_a_terminal(monkeypatch, terminal, variables, expected):
    class Stdin:
        def isatty(self):
            return terminal

    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stdin", None if terminal is None else Stdin())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert workspace_room.somebody_is_there() is expected


def test_somebody_is_there_in_a_notebook_that_takes_input(tmp_path):
    """In a genuine kernel, asked as JupyterLab asks it and as a program does."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    try:
        code = "from mnist_deploy.workspace import somebody_is_there\nprint(somebody_is_there())"
        assert printed(client, code, allow_stdin=True) == "True\n"
        assert printed(client, code, allow_stdin=False) == "False\n"
        silenced = "import os\nos.environ['MNIST_DEPLOY_UNATTENDED'] = '1'\n" + code
        assert printed(client, silenced, allow_stdin=True) == "False\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def printed(client, code: str, *, allow_stdin: bool) -> str:
    text = []
    client.execute_interactive(
        code,
        allow_stdin=allow_stdin,
        timeout=60,
        stop_on_error=True,
        output_hook=lambda message: text.append(
            message["content"].get("text") or "\n".join(message["content"].get("traceback", []))
        ),
    )
    return "".join(text)


# The local one, in processes of their own


@pytest.mark.processes
@pytest.mark.parametrize("before", ["arm()", "'https://management.azure.com/'"])
def test_azure_and_local_in_one_process(ws, workspace_home, tmp_path, before):
    """The local workspace must not be what a later log-in takes for Azure, nor the reverse."""
    program = f"""
        import mnist_deploy
        from azureml.core.authentication import ServicePrincipalAuthentication as Principal
        arm = lambda: Principal("t", "c", "s")._cloud_type.endpoints.resource_manager
        before = {before}
        assert mnist_deploy.connect_workspace(local=True).name == "local"
        print(before == arm() == "https://management.azure.com/")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path, env=os.environ | {"MNIST_DEPLOY_HOME": str(workspace_home)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.stdout.endswith("True\n"), ended.stderr


def test_a_local_workspace_that_does_not_start_says_where(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(blocked / "home"))
    with pytest.raises(WorkspaceError) as raised:
        connect_workspace()
    assert str(blocked) in str(raised.value)
    assert "MNIST_DEPLOY_HOME" in str(raised.value)


def test_windows_is_refused_with_a_word(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(WorkspaceError, match="needs Linux or macOS: its processes hand listening"):
        mnist_deploy.connect_workspace()
