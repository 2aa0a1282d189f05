"""The tutorial's steps with SDK v2: a managed online endpoint in place of the v1 service.

Needs the extra ``mnist-deploy[sdk-v2]``.
"""

from .endpoint import call_endpoint, connect_client, delete_endpoint, deploy_to_endpoint
from .migration import Migration, migrate_service

__all__ = [
    "Migration",
    "call_endpoint",
    "connect_client",
    "delete_endpoint",
    "deploy_to_endpoint",
    "migrate_service",
]
