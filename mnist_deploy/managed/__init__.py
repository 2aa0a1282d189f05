"""The tutorial's steps with SDK v2: a managed online endpoint instead of a service of SDK v1.

Requires the extra ``mnist-deploy[sdk-v2]``.
"""

from .endpoint import call_endpoint, connect_client, delete_endpoint, deploy_to_endpoint
from .migration import migrate_service
from .migration_report import Migration

__all__ = [
    "Migration",
    "call_endpoint",
    "connect_client",
    "delete_endpoint",
    "deploy_to_endpoint",
    "migrate_service",
]
