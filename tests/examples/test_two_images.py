import mnist_deploy as md


def test_labels_of_the_service_are_returned(mocked_workspace, mnist_sample):
    ws = mocked_workspace
    ws.cloud.respond_with(lambda images: [7, 2])
    config = md.build_inference_config(md.fetch_environment(ws))
    service = md.deploy_to_aci(ws, md.fetch_model(ws), config, md.build_aci_config(), "svc")
    with md.closing_service(service):
        assert list(md.call_service(service, mnist_sample.images[:2])) == [7, 2]
    ws.cloud.assert_requests(("svc", 200))
