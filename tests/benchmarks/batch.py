"""How long a batch job takes for many PNG files, beside a plain loop over the same script.

    python tests/benchmarks/batch.py [--files 10000] [--workers 2] [--rounds 3]

The job runs as the control plane starts it: the process that distributes the mini-batches, and its
workers. The loop imports the same script in one process, and calls ``run()`` for the same
mini-batches. Target: the job takes at most 1.5 times the loop's time divided by the number of
workers. Loop and job take turns; the medians are compared. The labels must be equal. Beside other
load, compare the seconds of CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

from mnist_deploy.data import load_test_data, load_training_data, write_sample

TARGET = 1.5
SCRIPT = """
import os
from pathlib import Path
import joblib
import numpy as np
from PIL import Image

def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.pkl"))

def run(mini_batch):
    images = np.stack([np.asarray(Image.open(path)).reshape(-1) for path in mini_batch])
    return [f"{Path(path).name} {label}"
            for path, label in zip(mini_batch, model.predict(images / 255.0))]
"""
LOOP = """
import sys
from pathlib import Path
import score
files = sorted(Path(sys.argv[1]).iterdir())
size = int(sys.argv[2])
score.init()
with open(sys.argv[3], "w") as output:
    for start in range(0, len(files), size):
        mini_batch = list(map(str, files[start:start + size]))
        output.writelines(f"{row}\\n" for row in score.run(mini_batch))
"""


def write_files(folder: Path, count: int) -> None:
    """A model of the sample, the script, and `count` PNG files of its test images."""
    write_sample(folder / "data")
    images, labels = load_training_data(folder / "data")
    model = LogisticRegression(max_iter=20).fit(images[:2000], labels[:2000])
    joblib.dump(model, folder / "model.pkl")
    (folder / "score.py").write_text(SCRIPT)
    (folder / "files").mkdir()
    pixels = np.rint(load_test_data(folder / "data")[0] * 255).astype(np.uint8)
    for number in range(count):
        image = Image.fromarray(pixels[number % len(pixels)].reshape(28, 28))
        image.save(folder / "files" / f"{number:06}.png")


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds that a command takes, and seconds of CPU, with one BLAS thread for each process."""
    variables = {**os.environ, "AZUREML_MODEL_DIR": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    began, cpu_before = time.perf_counter(), cpu_seconds()
    subprocess.run(command, cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, cpu_seconds() - cpu_before


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_rows(file: Path) -> list[str]:
    return sorted(file.read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--mini-batch-size", type=int, default=10, help="default: Azure's")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, options.files)
        settings = {
            "script": "score.py",
            "workers": options.workers,
            "mini_batch_size": options.mini_batch_size,
            "error_threshold": 0,
            "max_retries": 0,
            "timeout": 600,
            "output_file": "predictions.csv",
        }
        size = str(options.mini_batch_size)
        loop = [sys.executable, "-c", LOOP, "files", size, "loop.csv"]
        job = [sys.executable, "-P", "-m", "mnist_deploy.local.scoring.batch"]
        job += [json.dumps(settings), str(folder), str(folder / "files")]
        print(f"load average before: {os.getloadavg()[0]:.1f}")
        seconds: dict[str, list[tuple[float, float]]] = {"loop": [], "job": []}
        for _ in range(options.rounds):
            (folder / "predictions.csv").unlink(missing_ok=True)
            seconds["loop"].append(measure(loop, folder))
            seconds["job"].append(measure(job, folder))
            assert read_rows(folder / "predictions.csv") == read_rows(folder / "loop.csv")
        print(f"load average after: {os.getloadavg()[0]:.1f}")
    medians = {
        way: list(map(statistics.median, zip(*runs, strict=True))) for way, runs in seconds.items()
    }
    (loop_seconds, loop_cpu), (job_seconds, job_cpu) = medians["loop"], medians["job"]
    ratio = job_seconds / (loop_seconds / options.workers)
    print(
        f"{options.files} PNG files, {options.workers} workers: loop {loop_seconds:.2f} s, job "
        f"{job_seconds:.2f} s, {ratio:.2f} times the loop's time divided by the workers (target: "
        f"{TARGET}); CPU {loop_cpu:.2f} s and {job_cpu:.2f} s"
    )


if __name__ == "__main__":
    main()
