"""Tables for a notebook: what they show, in text and in HTML, and what they never show."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from azureml.core import Model, Webservice

import mnist_deploy as md

pytest_plugins = ["mnist_deploy.testing"]


class Cells(HTMLParser):
    """The texts of a table's caption and cells, and whether every tag is closed again."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def service(mocked_workspace):
    return md.deploy_to_aci(
        mocked_workspace,
        md.fetch_model(mocked_workspace),
        md.build_inference_config(md.fetch_environment(mocked_workspace)),
        md.build_aci_config(
            cpu_cores=0.5,
            memory_gb=2,
            auth_enabled=True,
            tags={"who": "<b>me</b> & you"},
            description="",
        ),
        "shown-svc",
    )


def test_show_service(service):
    table = md.show_service(service)
    assert table.title == "Service shown-svc"
    assert table.rows == {
        "state": "Healthy",
        "scoring URI": service.scoring_uri,
        "asks for a key": "yes",
        "models": "sklearn_mnist:1",
        "container": "0.5 CPU, 2 GB of memory",
        "created": f"{service.created_time:%Y-%m-%d %H:%M} UTC",
        "tags": "who=<b>me</b> & you",
    }


def test_it_is_text_in_a_terminal(service):
    lines = repr(md.show_service(service)).splitlines()
    assert lines[0] == "Service shown-svc"
    assert lines[1] == "  state           Healthy"


def test_it_is_html_in_a_notebook_with_everything_escaped(service):
    table = md.show_service(service)
    texts = Cells(table._repr_html_()).texts
    assert texts[0] == table.title
    assert "".join(texts[1:]) == "".join(f"{name}{value}" for name, value in table.rows.items())
    assert "<b>" not in table._repr_html_()


def test_it_never_shows_a_key(service):
    table = md.show_service(service)
    keys = service.get_keys()
    assert not any(key in repr(table) + table._repr_html_() for key in keys)


def test_an_open_service_says_so(service):
    service.update(auth_enabled=False)
    assert "open to whoever" in md.show_service(service).rows["asks for a key"]


def test_a_failed_service_says_why(mocked_workspace):
    mocked_workspace.cloud.fail_init()
    with pytest.raises(md.MnistDeployError):
        md.deploy_to_aci(
            mocked_workspace,
            md.fetch_model(mocked_workspace),
            md.build_inference_config(md.fetch_environment(mocked_workspace)),
            md.build_aci_config(),
            "failed-svc",
        )
    rows = md.show_service(Webservice(mocked_workspace, "failed-svc")).rows
    assert rows["state"] == "Failed"
    assert "init() raised" in rows["error"]


def test_show_model(mocked_workspace):
    model = md.fetch_model(mocked_workspace)
    table = md.show_model(model)
    assert table.title == "Model sklearn_mnist"
    assert table.rows["version"] == "1"
    assert table.rows["tags"] == "data=MNIST, method=sklearn"
    assert table.rows["sha256"] == model.properties["sha256"]
    assert "description" not in table.rows


def test_a_model_with_a_framework(mocked_workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pkl").write_bytes(b"1")
    model = Model.register(
        mocked_workspace,
        "m.pkl",
        "framed",
        model_framework=Model.Framework.SCIKITLEARN,
        model_framework_version="1.8.0",
    )
    assert md.show_model(model).rows["framework"] == "ScikitLearn 1.8.0"


def test_compare_results_names_what_they_disagree_on():
    labels = list(range(10)) * 2
    deployed = [9] * 12 + labels[12:]
    rows = md.compare_results(labels, labels, deployed).rows
    assert rows["accuracy of the local model"] == "1.0000"
    assert rows["accuracy of the deployed model"] == "0.4500"
    assert rows["they disagree on"] == "11 samples"
    assert rows["sample 0"] == "is 0, local 0, deployed 9"
    assert rows["and on"] == "1 sample more"
    assert sum(name.startswith("sample") for name in rows) == 10


@pytest.mark.parametrize("arrays", [([], [], []), ([1], [1], [1, 2]), ([1, 2], [1], [1, 2])])
def test_compare_results_wants_one_length(arrays):
    with pytest.raises(ValueError, match="expected as many of each"):
        md.compare_results(*arrays)
