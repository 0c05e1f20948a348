"""(e) Peak memory of `features.extract` from files, without the features themselves, against that of few images.

python benchmarks/memory.py

Each number is the peak of a process of its own, TensorFlow included. The images are JPEGs of 224×224, drawn on the spot
and repeated; each repetition is decoded again. The weights are random, which takes the same memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import table

SIZES = (500, 5_000, 20_000)
GOAL = 1.15
SIDE, FILES = 224, 100


def draw(folder):
    """Photographs of nothing in particular: smooth noise, which JPEG compresses as it does a photograph."""
    import numpy as np
    from PIL import Image

    for i in range(FILES):
        coarse = np.random.default_rng(i).integers(0, 256, (14, 14, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.jpg", quality=90)


def peak(folder, n, engine):
    """What the process of one number does: print megabytes at the peak without the features."""
    import numpy as np

    from tlutils import backbones, data, features
    from tlutils.runtime import setup

    setup(gpu="off")
    backbone = backbones.load("mobilenet_v2", weights=None)
    files = sorted(folder.glob("*.jpg"))
    paths = [files[i % len(files)] for i in range(n)]
    examples = data.Examples(np.zeros(n, int), image_size=(SIDE, SIDE), channels=3, paths=paths)
    found = features.extract(backbone, examples, engine=engine)
    assert len(found) == n
    print(json.dumps(highest() - found.nbytes / 1e6))


def highest():
    """Megabytes of memory that this process has held at most."""
    if (status := Path("/proc/self/status")).exists():  # what getrusage says on Linux includes the parent's memory
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(repetitions=1, engine="keras"):
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder))

        def megabytes(n):
            command = [sys.executable, __file__, "--folder", folder, "--images", str(n), "--engine", engine]
            return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

        peaks = [[megabytes(n) for n in SIZES] for _ in range(repetitions)]
    for column, n in enumerate(SIZES[1:], start=1):
        pairs = [(row[column], row[0]) for row in peaks]
        goal = GOAL if n == SIZES[-1] else None
        yield table.Row("e", f"peak memory, {n:,} images", f"{SIZES[0]} images", pairs, "MB", goal)


if __name__ == "__main__":
    if "--images" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--folder", type=Path)
        parser.add_argument("--images", type=int)
        parser.add_argument("--engine")
        options = parser.parse_args()
        sys.exit(peak(options.folder, options.images, options.engine))
    sys.exit(table.main(measure))
