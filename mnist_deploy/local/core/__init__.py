"""The state of the workspace, independent of the REST APIs: records, endpoints, runs."""
