"""One way to score: its running server, its client and the figures measured so far."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import peers
from client import Client
from load import Load
from servers import DeployedService, PeerServer
from ways import Way

Server = DeployedService | PeerServer


class Contestant:
    """A way, its server and its client.

    Parameters
    ----------
    way : Way
    server : DeployedService or PeerServer
    python : str
        The interpreter that the client runs in.
    images : Path
        An .npy file of images.
    labels : ndarray
        The labels of ``model.predict``.

    Raises
    ------
    RuntimeError
        The server cannot score, or its labels differ.
    """

    def __init__(
        self, way: Way, server: Server, python: str, images: Path, labels: np.ndarray
    ) -> None:
        self.way = way
        self.server = server
        self._labels = labels
        self._seconds: list[float] = []
        self._client_memory: dict[str, Any] = {}
        self._server_memory: float | None = None
        self._one_image = images.parent / f"{way.name}.body"
        self.load = Load(server.uri, self._one_image, way.form.content_type)
        self._client = Client(python, way.name, server.uri, server.name, images)
        try:
            self.body_bytes = self._client.write_body(len(labels), self._one_image)
            self._client.write_body(1, self._one_image)
            self.score(1)  # what is imported or opened at the first call is no part of a round
        except BaseException:
            self._client.close()
            raise

    def score(self, count: int) -> dict[str, Any]:
        """Score the first ``count`` images and compare their labels."""
        answer = self._client.score(count)
        if answer.pop("labels") != self._labels[:count].tolist():
            raise RuntimeError("its labels differ from those of model.predict")
        return answer

    def run_round(self) -> None:
        """Score all images once."""
        answer = self.score(len(self._labels))
        self._seconds.append(answer.pop("seconds"))
        self._client_memory = answer
        self._server_memory = self.server.peak_memory()

    def result(self) -> dict[str, Any]:
        return {
            "title": self.way.title,
            "seconds": self._seconds,
            "median_seconds": median(self._seconds) if self._seconds else None,
            "body_bytes": self.body_bytes,
            "one_image_bytes": self._one_image.stat().st_size,
            "server_peak_mb": self._server_memory,
            "client_peak_mb": self._client_memory.get("peak_mb"),
            "client_added_mb": self._client_memory.get("added_mb"),
            "seconds_to_start": self.server.seconds_to_start,
            "one_image": self.load.result(),
        }

    def close(self) -> None:
        self._client.close()
        self.server.stop()


class Contest:
    """All ways that could be started; a way that fails is left out and its reason is kept."""

    def __init__(self) -> None:
        self.running: list[Contestant] = []
        self.results: dict[str, dict[str, Any]] = {}

    def enter(self, way: Way, start: Callable[[Way], Contestant]) -> None:
        try:
            self.running.append(start(way))
        except Exception as error:
            self._drop(way, error)

    def each(self, work: Callable[[Contestant], Any]) -> None:
        """Call `work` for each running way, one after the other."""
        for contestant in list(self.running):
            try:
                work(contestant)
            except Exception as error:
                self.running.remove(contestant)
                contestant.close()
                self._drop(contestant.way, error)

    def close(self) -> None:
        """Stop all servers and clients and keep their figures."""
        for contestant in self.running:
            self.results[contestant.way.name] = contestant.result()
            contestant.close()
        self.running = []

    def _drop(self, way: Way, error: Exception) -> None:
        print(f"{way.title} is left out: {error}", file=sys.stderr, flush=True)
        self.results[way.name] = {"title": way.title, "left_out": str(error)}


def start_peer(
    way: Way, peers_dir: Path, model: Path, scratch: Path, images: Path, labels: np.ndarray
) -> Contestant:
    """Install and start a peer, and a client of it in the peer's own environment."""
    peer = peers.PEERS[way.server]
    programs = peers.install(peer, peers_dir)
    folder = scratch / way.name
    folder.mkdir()
    server = peers.start(peer, programs, model, folder, np.load(images)[:1])
    return make_contestant(way, server, str(programs / "python"), images, labels)


def make_contestant(
    way: Way, server: Server, python: str, images: Path, labels: np.ndarray
) -> Contestant:
    try:
        return Contestant(way, server, python, images, labels)
    except BaseException:
        server.stop()
        raise
