import mnist_deploy as md


def count_errors(ws, images, labels):
    """Deploy the registered model, and count how often it is wrong."""
    service = md.deploy_to_aci(
        ws,
        md.fetch_model(ws),
        md.build_inference_config(md.fetch_environment(ws)),
        md.build_aci_config(auth_enabled=True),
        name="report-svc",
    )
    with md.closing_service(service):
        return int((md.call_service(service, images) != labels).sum())
