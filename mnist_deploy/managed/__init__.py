"""The tutorial's steps with SDK v2: a managed online endpoint instead of a service of SDK v1.

Batch endpoints, which score folders of files, have no counterpart in the tutorial.

Requires the extra ``mnist-deploy[sdk-v2]``.
"""

from .batch import deploy_batch, score_batch
from .endpoint import call_endpoint, connect_client, delete_endpoint, deploy_to_endpoint
from .migration import migrate_service
from .migration_report import Migration

__all__ = [
    "Migration",
    "call_endpoint",
    "connect_client",
    "delete_endpoint",
    "deploy_batch",
    "deploy_to_endpoint",
    "migrate_service",
    "score_batch",
]
