"""The package and the chapters on other releases of TensorFlow and Keras than the one that is installed.

Each line of versions.txt gets an environment of its own, which stays in _build/versions for the next time.
"""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LINES = [line for line in (ROOT / "tests" / "versions.txt").read_text().splitlines() if not line.startswith("#")]
# What a release of TensorFlow pins by itself; everything else is installed as constraints.txt has it.
FREE = {"tensorflow", "keras", "numpy", "ml-dtypes", "tensorboard", "protobuf", "h5py", "flatbuffers", "grpcio"}
TESTS = ["backbones", "features", "models", "training", "evaluation", "runtime", "zoo"]


def name(line):
    return re.sub(r"[^\w.]+", "-", line)


def run(*command, timeout=1500, **options):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, **options)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout[-6000:]}\n{result.stderr[-4000:]}"
    return result.stdout


@pytest.fixture(scope="module", params=LINES, ids=name)
def python(request):
    """The interpreter of an environment with these releases."""
    line = request.param
    if sys.version_info >= (3, 13) and "2.19" in line:
        pytest.skip("TensorFlow 2.19 has no wheel for Python 3.13")
    folder = ROOT / "_build" / "versions" / name(line)
    interpreter = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = folder / ".ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        constraints = folder / "constraints.txt"
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        constraints.write_text("\n".join(pin for pin in pins if pin.split("==")[0].replace("_", "-") not in FREE))
        wanted = [*line.split(), "pytest", "pytest-timeout", "-e", ".[notebook,run]"]
        run(interpreter, "-m", "pip", "install", "--quiet", "-c", constraints, *wanted)
        ready.touch()
    versions = run(interpreter, "-c", "import tensorflow, keras; print(tensorflow.__version__, keras.__version__)")
    assert versions.split() == re.findall(r"==(\S+)", line)
    return interpreter


@pytest.mark.timeout(1800)
def test_the_package_passes_its_tests(python):
    files = [f"tests/test_{part}.py" for part in TESTS]
    out = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files)
    assert " passed" in out and "failed" not in out


@pytest.mark.timeout(1800)
def test_the_claims_of_the_chapters_hold(python, tmp_path):
    run(python.with_name("tlutils"), "run", "--out", tmp_path)
