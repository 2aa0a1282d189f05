"""Benchmark of scoring: time and memory of the tutorial's way, ours, and those of peer products.

``python tests/benchmarks/scoring.py`` deploys the tutorial's script and ours on a local
workspace of its own, installs the peers into environments of their own at their first use,
lets all of them score the same images in turn, and checks that their labels agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import load
import numpy as np
import peers
import platformdirs
import report
from contestant import Contest, Contestant, make_contestant, start_peer
from local_workspace import EMPTY_SCRIPT, OUR_SCRIPT, TUTORIAL_SCRIPT, LocalWorkspace
from slow_clients import seconds_beside
from ways import OUR_IDX, WAYS, Way

SHORT_STREAM = 10_000  # images in the short stream
CONNECTIONS = (1, 8, 64)  # over which one image is posted
SCRIPTS = {"tutorial": TUTORIAL_SCRIPT, "ours": OUR_SCRIPT}


def main() -> None:
    options = parse_arguments()
    os.environ["TQDM_DISABLE"] = "1"  # read when mnist_deploy imports tqdm, which is later
    if not load.is_installed():
        print(load.MISSING, file=sys.stderr)
    started = datetime.now(UTC), os.getloadavg()
    # Standard output is the report's.
    with tempfile.TemporaryDirectory(prefix="scoring-") as scratch, redirect_stdout(sys.stderr):
        figures = measure(options, Path(scratch))
    figures["run"] = {
        "began": started[0].isoformat(timespec="seconds"),
        "load_average_before": started[1],
        "load_average_after": os.getloadavg(),
        "images": options.images,
        "rounds": options.rounds,
        "seconds_of_load": options.seconds,
        "data": "the sample, repeated" if options.data_dir is None else "of --data-dir",
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn", "httptools")},
    }
    figures["targets"] = report.targets(figures)
    text = report.markdown(figures)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies (default: the sample)")
    parser.add_argument("--no-peers", action="store_true", help="only the tutorial's way and ours")
    cache = platformdirs.user_cache_path("mnist_deploy") / "benchmark-peers"
    parser.add_argument("--peers-dir", type=Path, default=cache, help="where peers are installed")
    parser.add_argument("--images", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=2, help="of load in a round: %(default)s")
    parser.add_argument("--stream", type=int, default=1_000_000, help="images: %(default)s")
    return parser.parse_args()


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with closing(LocalWorkspace(scratch)) as local:
        images = test_images(options.data_dir or local.data_dir, options.images)
        labels = joblib.load(local.model_file).predict(images)
        figures |= compare(options, local, images, labels, scratch)
        figures["stream"] = {
            count: local.stream(count, images)
            for count in progress("stream", (SHORT_STREAM, options.stream))
        }
        figures["beside"] = measure_beside_slow_clients(local, images[:1])
        figures["start"] = compare_starts(options, local, images[:1], scratch)
        figures["notebook_seconds"] = [
            local.seconds_of_notebook() for _ in progress("notebook", range(min(3, options.rounds)))
        ]
    return figures


def test_images(data_dir: Path, count: int) -> np.ndarray:
    """The first ``count`` test images, from the first again where there are fewer."""
    from mnist_deploy import load_test_data

    images, _ = load_test_data(data_dir)
    return np.resize(images, (count, images.shape[1]))


def compare(
    options: argparse.Namespace,
    local: LocalWorkspace,
    images: np.ndarray,
    labels: np.ndarray,
    scratch: Path,
) -> dict[str, Any]:
    """Run all ways interleaved: first all images, then one image under load."""
    file = scratch / "images.npy"
    np.save(file, images)

    def start(way: Way) -> Contestant:
        if way.server not in SCRIPTS:
            return start_peer(way, options.peers_dir, local.model_file, scratch, file, labels)
        name = way.name.replace("_", "-")
        service = local.deploy(SCRIPTS[way.server], name, images[:1], way.form)
        return make_contestant(way, service, sys.executable, file, labels)

    contest = Contest()
    try:
        ways = [way for way in WAYS if way.server in SCRIPTS or not options.no_peers]
        for way in progress("starting", ways):
            contest.enter(way, start)
        for _ in progress(f"{options.images:,} images", range(options.rounds)):
            contest.each(Contestant.run_round)
        limit = compare_load(options, local, images[:1], contest, scratch)
    finally:
        contest.close()
    return {"ways": contest.results, "server_limit": limit}


def compare_load(
    options: argparse.Namespace,
    local: LocalWorkspace,
    one_image: np.ndarray,
    contest: Contest,
    scratch: Path,
) -> dict[str, Any]:
    """Put load on all ways in turn, and on a script that does nothing; returns its figures."""
    if not load.is_installed():
        return {}
    body = scratch / "limit.body"
    body.write_bytes(OUR_IDX.body(one_image))
    service = local.deploy(EMPTY_SCRIPT, "empty", one_image, OUR_IDX)
    try:
        limit = load.Load(service.uri, body, OUR_IDX.content_type)
        for _ in progress("one image", range(options.rounds)):
            for connections in CONNECTIONS:
                limit.run(connections, options.seconds)
                contest.each(partial(put_load, connections=connections, seconds=options.seconds))
        return limit.result()
    finally:
        service.stop()


def measure_beside_slow_clients(
    local: LocalWorkspace, one_image: np.ndarray
) -> dict[str, float | None]:
    """Return the maximum latency in seconds of our service beside each group of slow clients."""
    service = local.deploy(OUR_SCRIPT, "beside-slow", one_image, OUR_IDX)
    try:
        return seconds_beside(service.uri, OUR_IDX.body(one_image), OUR_IDX.content_type)
    finally:
        service.stop()


def put_load(contestant: Contestant, connections: int, seconds: int) -> None:
    contestant.load.run(connections, seconds)


def compare_starts(
    options: argparse.Namespace, local: LocalWorkspace, one_image: np.ndarray, scratch: Path
) -> dict[str, list[float]]:
    """Seconds to the first answer: of a deployment, and of ``mlflow models serve``."""
    ours: list[float] = []
    mlflow: list[float] = []
    peer = peers.PEERS["mlflow"]
    for attempt in progress("first answer", range(options.rounds)):
        ours.append(local.seconds_to_deploy(one_image))
        if options.no_peers:
            continue
        try:
            programs = peers.install(peer, options.peers_dir)
            folder = scratch / f"start-{attempt}"
            folder.mkdir()
            server = peers.start(peer, programs, local.model_file, folder, one_image)
        except Exception as error:  # as above, a peer that fails is left out
            print(f"mlflow models serve is left out: {error}", file=sys.stderr)
            continue
        mlflow.append(server.seconds_to_start)
        server.stop()
    return {"deploy_to_aci": ours, "mlflow models serve": mlflow}


def progress(what: str, steps: Collection[Any]) -> Iterator[Any]:
    for number, step in enumerate(steps, start=1):
        print(f"{what}: {number} of {len(steps)}", file=sys.stderr, flush=True)
        yield step


if __name__ == "__main__":
    main()
