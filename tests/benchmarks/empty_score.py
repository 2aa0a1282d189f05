"""A script that does nothing: how fast the server itself is."""

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp


def init() -> None:
    pass


@rawhttp
def run(request: AMLRequest) -> list[int]:
    return [0]
