"""The periodic work of the control plane: client checks and removal of uploads."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading

from polling import wait_until

from mnist_deploy.local.core.faults import Full
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.server import process
from mnist_deploy.local.server.client_registrations import ClientRegistrations


def test_full_disk_does_not_stop_the_watch_loop(tmp_path, monkeypatch):
    for name in ("REGISTRATION_CHECK_INTERVAL", "SWEEP_INTERVAL"):
        monkeypatch.setattr(process, name, 0.01)
    store, registrations = Store(tmp_path), ClientRegistrations()
    registrations.add(os.getpid())
    attempts = iter([Full(), OSError(errno.EMFILE, "too many"), sqlite3.OperationalError("disk")])

    def sweep(idle: float) -> None:
        for error in attempts:
            raise error
        registrations.close()

    monkeypatch.setattr(store, "sweep", sweep)
    process.watch(store, registrations)
    store.close()


def test_unreferenced_uploads_are_removed_while_the_control_plane_runs(tmp_path, monkeypatch):
    for name in ("REGISTRATION_CHECK_INTERVAL", "SWEEP_INTERVAL", "UPLOAD_RETENTION"):
        monkeypatch.setattr(process, name, 0.01)
    store, registrations = Store(tmp_path), ClientRegistrations()
    registrations.add(os.getpid())
    store.write("LocalUpload/c/f", [b"uploaded, but never registered"])
    watching = threading.Thread(target=process.watch, args=(store, registrations))
    watching.start()
    wait_until(lambda: store.artifact("LocalUpload/c/f") is None, 5)
    assert not list((tmp_path / "blobs").iterdir())
    registrations.close()
    watching.join(5)
    assert not watching.is_alive()
    store.close()
