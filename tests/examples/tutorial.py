import mnist_deploy as md

ws = md.connect_workspace()  # yours where a config.json lies here, else the local one
model = md.prepare_workspace(ws)  # trains and registers sklearn_mnist, unless it is there

inference_config = md.build_inference_config(md.fetch_environment(ws))
service = md.deploy_to_aci(ws, model, inference_config, md.build_aci_config(), overwrite=True)

with md.closing_service(service):  # deletes it at the end, also after an error
    X_test, y_test = md.load_test_data()
    y_hat = md.call_service(service, X_test)
    print(f"accuracy of the deployed model: {(y_hat == y_test).mean():.4f}")
    md.plot_predictions(X_test, y_test, y_hat).savefig("predictions.png")
