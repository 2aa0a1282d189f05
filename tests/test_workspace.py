"""Which workspace is chosen, errors of a config.json, and how the login is chosen."""

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

from mnist_deploy import connect_workspace, sdk
from mnist_deploy import workspace as workspace_module
from mnist_deploy.errors import ConfigError, WorkspaceError
from mnist_deploy.local.cli.config_file import TEMPORARY_CONFIG, write_temporary_config
from mnist_deploy.local.discovery import CLOUD
from mnist_deploy.workspace import find_config, read_config

FIELDS = {
    "subscription_id": "11111111-2222-3333-4444-555555555555",
    "resource_group": "my-group",
    "workspace_name": "my-workspace",
}
SECRET = "s3cret-that-no-message-may-show"


@pytest.fixture(autouse=True)
def _no_login(tmp_path, monkeypatch):
    """In an empty folder, without a login of the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "CI", "MSI_ENDPOINT",
                 "IDENTITY_ENDPOINT", "MNIST_DEPLOY_UNATTENDED",
                 "AZUREML_CURRENT_CLOUD"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(workspace_module, "_COMPUTE_INSTANCE", tmp_path / ".nbvm")


@pytest.fixture
def azure(monkeypatch):
    """`Workspace.get` and the four logins of the SDK, autospecced."""
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
    path.write_bytes((json.dumps(FIELDS | changes) if content is None else content).encode())
    return path


# --- the choice of the workspace ---


@pytest.fixture
def local(ws, workspace_home, monkeypatch):
    """The folder of the session's local workspace, as $MNIST_DEPLOY_HOME."""
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(workspace_home))
    return workspace_home


def test_local_workspace_is_used_without_a_config_json(local, capsys):
    found = connect_workspace()
    assert type(found) is Workspace
    assert (found.name, found.resource_group) == ("local", "local")
    where = "no config.json in this folder or above it"
    folder = f"registered models are kept in {local}"
    page = "To view it in the browser: python -m mnist_deploy.local portal"
    output = capsys.readouterr().out.replace("~", os.path.expanduser("~"))
    assert output == f"Local workspace ({where}); {folder}.\n{page}\n"


def test_local_workspace_is_used_on_request_and_inside_exec(local, tmp_path, monkeypatch, capsys):
    write_config(tmp_path / "config.json")
    assert connect_workspace(local=True).name == "local"
    assert "Local workspace (as requested)" in capsys.readouterr().out
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", CLOUD)
    assert connect_workspace().name == "local"


@pytest.mark.parametrize("place", ["", ".azureml", "aml_config", "..", "../.azureml"])
def test_azure_is_used_with_a_config_json_that_the_sdk_would_find(
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
    assert os.path.samefile(os.path.expanduser(shown[1]), file)


@pytest.mark.parametrize("start", ["", "sub/folder"])
def test_config_json_is_the_one_that_the_sdk_finds(azure, tmp_path, monkeypatch, start):
    """Of several files, in the order of `Workspace.from_config`."""
    for i, place in enumerate(["", ".azureml", "sub", "sub/folder/aml_config"]):
        write_config(tmp_path / place / "config.json", workspace_name=f"workspace-{i}")
    monkeypatch.chdir(tmp_path / start)
    Workspace.from_config(auth=object())
    expected = azure.call_args.args[0]
    connect_workspace()
    assert azure.call_args.args[0] == expected


@pytest.mark.parametrize("named", ["config.json", ".", ".azureml", "else/where.json"])
def test_config_json_can_be_given_as_file_or_folder(azure, tmp_path, named):
    write_config(tmp_path / ".azureml" / "config.json")
    write_config(tmp_path / "else" / "where.json")
    if named == "config.json":
        write_config(tmp_path / "config.json")
    assert connect_workspace(named) is azure.return_value


def test_missing_config_json_raises_config_error(tmp_path):
    """Neither the local workspace nor a config.json of a parent folder is used instead."""
    with pytest.raises(ConfigError, match="Download yours from the Azure portal"):
        connect_workspace(local=False)
    write_config(tmp_path / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json at empty\. Expected the file, or a f"):
        connect_workspace("empty")
    with pytest.raises(ConfigError, match=r"no config\.json at nowhere\.json"):
        connect_workspace("nowhere.json", local=False)
    for azure in ({"config": "config.json"}, {"auth": object()}):
        with pytest.raises(ValueError, match="config and a login are for a workspace on Azure"):
            connect_workspace(**azure, local=True)


def test_auth_of_the_caller_is_used_for_azure(azure, tmp_path):
    mine = create_autospec(authentication.AbstractAuthentication, instance=True)
    with pytest.raises(ConfigError, match="Download yours from the Azure portal"):
        connect_workspace(auth=mine)
    write_config(tmp_path / "config.json")
    assert connect_workspace(auth=mine) is azure.return_value
    assert azure.call_args.kwargs["auth"] is mine
    authentication.AzureCliAuthentication.assert_not_called()


# --- the temporary config.json of `python -m mnist_deploy.local exec` ---


def test_temporary_config_json_of_exec_is_ignored(local, tmp_path):
    """A command in another terminal finds the file, which names no workspace on Azure."""
    with write_temporary_config(tmp_path) as file:
        assert connect_workspace().name == "local"
        assert file.exists()  # the `exec` still runs


def test_left_over_of_a_killed_exec_is_removed(azure, tmp_path):
    write_config(tmp_path / ".azureml" / "config.json", TEMPORARY_CONFIG.decode())
    assert find_config() is None
    assert not (tmp_path / ".azureml" / "config.json").exists()


def test_config_json_beside_a_temporary_one_is_found(tmp_path):
    write_config(tmp_path / "config.json")
    with write_temporary_config(tmp_path):
        assert find_config() == tmp_path / "config.json"


# --- invalid files ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "does not hold a JSON object"),
        ("null", "does not hold a JSON object"),
        ("{}", "the field 'subscription_id' is not filled in"),
        (json.dumps(FIELDS | {"resource_group": ""}), "the field 'resource_group' is not"),
        (json.dumps(FIELDS | {"resource_group": None}), "the field 'resource_group' is not"),
        (json.dumps(FIELDS | {"workspace_name": "<my-ws>"}), "the field 'workspace_name' is not"),
        (json.dumps(FIELDS | {"workspace_name": ["a"]}), "the field 'workspace_name' is not"),
    ],
)
def test_invalid_config_json_is_reported_with_file_and_field(azure, tmp_path, content, message):
    file = write_config(tmp_path / "config.json", content)
    with pytest.raises(ConfigError) as raised:
        connect_workspace()
    assert message in str(raised.value)
    assert str(file) in str(raised.value)
    assert "local=True" in str(raised.value)
    azure.assert_not_called()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_config_json_may_have_any_unicode_encoding(tmp_path, encoding):
    file, content = tmp_path / "config.json", FIELDS | {"resource_group": " größe "}
    file.write_text(json.dumps(content, ensure_ascii=False), encoding)
    assert read_config(file) == (FIELDS["subscription_id"], "größe", "my-workspace")


def test_config_json_without_read_permission_raises_config_error(tmp_path, monkeypatch):
    file = write_config(tmp_path / "config.json")
    if sys.platform != "win32" and os.geteuid() != 0:  # root may read anything
        file.chmod(0)
        with pytest.raises(ConfigError, match="Permission denied"):
            connect_workspace()

    def deny(self):
        raise PermissionError(13, "Permission denied", str(self))

    for method, message in (
        ("read_bytes", "cannot be read"),
        ("is_file", "cannot be searched for"),
    ):
        monkeypatch.setattr(type(file), method, deny)
        with pytest.raises(ConfigError, match=f"{message}: .*Permission denied"):
            connect_workspace()


def test_folder_named_config_json_is_ignored(tmp_path):
    (tmp_path / "config.json").mkdir()
    assert find_config() is None
    with pytest.raises(ConfigError, match=r"no config\.json at config\.json"):
        find_config("config.json")


# --- a workspace that cannot be reached ---


@pytest.mark.parametrize(
    ("error", "advice"),
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
def test_unreachable_workspace_is_reported_with_cause_and_advice(azure, tmp_path, error, advice):
    file = write_config(tmp_path / "config.json")
    azure.side_effect = error
    with pytest.raises(WorkspaceError) as raised:
        connect_workspace()
    message = str(raised.value)
    assert message.startswith(f"The workspace 'my-workspace' that {file} names cannot be reached: ")
    assert advice in message
    assert "\n" not in message
    assert message.endswith("Or use connect_workspace(local=True).")


def test_wrong_subscription_is_reported_as_by_the_sdk(ws, tmp_path, monkeypatch):
    """The SDK checks it against the subscriptions that the local workspace lists."""
    write_config(tmp_path / "config.json")
    monkeypatch.setattr(workspace_module, "choose_authentication", lambda: ws._auth_object)
    with pytest.raises(WorkspaceError, match=r"don't have access to 1111.*Check subscription_id"):
        connect_workspace()


def test_azure_that_does_not_respond_raises_after_the_timeout(azure, tmp_path, monkeypatch):
    write_config(tmp_path / "config.json")
    never = threading.Event()
    azure.side_effect = lambda *_, **__: never.wait(60)
    monkeypatch.setattr(sdk, "RESPONSE_TIMEOUT", 0.2)
    with pytest.raises(WorkspaceError, match=r"did not complete within 0\.2 s"):
        connect_workspace()
    never.set()


def set_principal(monkeypatch, *values: str) -> None:
    for name, value in zip(workspace_module._SERVICE_PRINCIPAL, values, strict=True):
        monkeypatch.setenv(name, value)


def test_service_principal_without_network_shows_no_secret(tmp_path, monkeypatch, capfd):
    """With the SDK's own class, and a proxy at a closed port."""
    set_principal(monkeypatch, "tenant", "client", SECRET)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    write_config(tmp_path / "config.json")
    began = time.monotonic()
    with pytest.raises(WorkspaceError, match="cannot be reached") as raised:
        connect_workspace()
    assert time.monotonic() - began < 60
    seen = f"{raised.value} {raised.value.__cause__!r} {capfd.readouterr()}"
    assert SECRET not in seen


# --- the login ---


def test_service_principal_is_the_first_choice(azure, monkeypatch):
    set_principal(monkeypatch, "tenant", "client", SECRET)
    principal = authentication.ServicePrincipalAuthentication
    assert workspace_module.choose_authentication() is principal.return_value
    principal.assert_called_once_with("tenant", "client", SECRET)
    authentication.AzureCliAuthentication.assert_not_called()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_incomplete_service_principal_names_the_missing_variable(azure, monkeypatch, missing):
    set_principal(monkeypatch, *("" if i == missing else SECRET for i in range(3)))
    name = workspace_module._SERVICE_PRINCIPAL[missing]
    with pytest.raises(WorkspaceError, match=f"{name} is not set") as raised:
        workspace_module.choose_authentication()
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("source", ["MSI_ENDPOINT", "IDENTITY_ENDPOINT", "file"])
@pytest.mark.parametrize("client", [None, "client-of-identity"])
def test_managed_identity_is_the_second_choice(azure, monkeypatch, source, client):
    if source == "file":
        workspace_module._COMPUTE_INSTANCE.touch()
    else:
        monkeypatch.setenv(source, "http://127.0.0.1:9")
    if client:
        monkeypatch.setenv("AZURE_CLIENT_ID", client)
    identity = authentication.MsiAuthentication
    assert workspace_module.choose_authentication() is identity.return_value
    identity.assert_called_once_with(identity_config={"client_id": client} if client else None)
    identity.return_value.get_authentication_header.assert_called_once_with()
    authentication.AzureCliAuthentication.assert_not_called()


@pytest.mark.parametrize("has_identity", [False, True])
def test_azure_cli_is_the_third_choice(azure, monkeypatch, has_identity):
    """Without a managed identity, or with one that gives no token."""
    identity = authentication.MsiAuthentication
    identity.return_value.get_authentication_header.side_effect = ConnectionError("no route")
    if has_identity:
        monkeypatch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9")
    cli = authentication.AzureCliAuthentication.return_value
    assert workspace_module.choose_authentication() is cli
    cli.get_authentication_header.assert_called_once_with()
    assert identity.called == has_identity
    authentication.InteractiveLoginAuthentication.assert_not_called()


@pytest.fixture(params=[True, False], ids=["az installed", "no az"])
def no_cli(azure, request) -> None:
    cli = authentication.AzureCliAuthentication
    error = AuthenticationException("Please run 'az login'")
    (cli.return_value.get_authentication_header if request.param else cli).side_effect = error


def test_interactive_login_is_the_last_choice(no_cli, monkeypatch):
    monkeypatch.setattr(workspace_module, "can_prompt", lambda: True)
    interactive = authentication.InteractiveLoginAuthentication
    assert workspace_module.choose_authentication() is interactive.return_value
    interactive.side_effect = AuthenticationException("The browser was closed")
    with pytest.raises(WorkspaceError, match=r"failed: The browser was closed\. Try again"):
        workspace_module.choose_authentication()


def test_interactive_login_is_not_started_without_a_terminal(no_cli, azure, monkeypatch, tmp_path):
    """The message names each login that was tried."""
    identity = authentication.MsiAuthentication.return_value
    identity.get_authentication_header.side_effect = ConnectionError("no route")
    monkeypatch.setenv("CI", "true")
    write_config(tmp_path / "config.json")
    cli = "Azure CLI: Please run 'az login'.)"
    for variable, tried in (
        (None, f"({cli}"),
        ("x", f"(Managed identity: no route. {cli}"),
    ):
        if variable:
            monkeypatch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(WorkspaceError) as raised:
            connect_workspace()
        for text in (*workspace_module._SERVICE_PRINCIPAL, "az login", tried):
            assert text in str(raised.value)
    authentication.InteractiveLoginAuthentication.assert_not_called()
    azure.assert_not_called()


def test_missing_azure_cli_is_reported_without_output_of_the_sdk(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(workspace_module, "can_prompt", lambda: False)
    began = time.monotonic()
    with pytest.raises(WorkspaceError, match=r"Azure CLI: .*az"):
        workspace_module.choose_authentication()
    assert time.monotonic() - began < 60
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
def test_can_prompt_depends_on_terminal_and_environment(monkeypatch, terminal, variables, expected):
    class Stdin:
        def isatty(self):
            return terminal

    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stdin", None if terminal is None else Stdin())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert workspace_module.can_prompt() is expected


@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")  # of ZeroMQ on Windows
def test_can_prompt_in_a_notebook_depends_on_the_front_end(tmp_path):
    """JupyterLab allows input; a program that runs a notebook does not."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    try:
        code = "from mnist_deploy.workspace import can_prompt\nprint(can_prompt())"
        assert execute(client, code, allow_stdin=True) == "True\n"
        assert execute(client, code, allow_stdin=False) == "False\n"
        unattended = "import os\nos.environ['MNIST_DEPLOY_UNATTENDED'] = '1'\n" + code
        assert execute(client, unattended, allow_stdin=True) == "False\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def execute(client, code: str, *, allow_stdin: bool) -> str:
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


# --- the local workspace ---


@pytest.mark.processes
@pytest.mark.parametrize("before", ["arm()", "'https://management.azure.com/'"])
def test_azure_and_local_workspace_in_one_process(ws, workspace_home, tmp_path, before):
    """A later login must lead to Azure, not to the local workspace."""
    program = f"""
        import mnist_deploy
        from azureml.core.authentication import ServicePrincipalAuthentication as Principal
        arm = lambda: Principal("t", "c", "s")._cloud_type.endpoints.resource_manager
        before = {before}
        assert mnist_deploy.connect_workspace(local=True).name == "local"
        print(before == arm() == "https://management.azure.com/")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path, env=os.environ | {"MNIST_DEPLOY_HOME": str(workspace_home)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.stdout.endswith("True\n"), run.stderr


def test_local_workspace_that_does_not_start_names_its_folder(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(blocked / "home"))
    with pytest.raises(WorkspaceError) as raised:
        connect_workspace()
    assert str(blocked) in str(raised.value)
    assert "MNIST_DEPLOY_HOME" in str(raised.value)
