"""The REST that azureml-core, SDK v1, speaks."""
