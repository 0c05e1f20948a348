"""The package and the chapters on other releases of TensorFlow and Keras than the one that is installed.

Each line of versions.txt gets an environment of its own, which stays in _build/versions for the next time.
"""

import hashlib
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
TESTS = [
    *("backbones", "checkpoints", "cost", "engines", "features", "models", "surgery", "training"),
    *("diagnose", "evaluation", "explain", "reference", "reference_networks", "runtime", "sources"),
    *("transferability", "zoo"),
    *("downloads", "photos", "recipes", "sounds"),
]


def name(line):
    return re.sub(r"[^\w.]+", "-", line)


def wanted(line):
    """What an environment is made from; another one is made where something of it has changed."""
    files = (ROOT / name for name in ("pyproject.toml", "constraints.txt"))
    return hashlib.sha256(b"".join([line.encode(), *(file.read_bytes() for file in files)])).hexdigest()


def run(*command, timeout=3600, **options):
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
    if not ready.is_file() or ready.read_text() != wanted(line):
        venv.create(folder, with_pip=True, clear=True)
        constraints = folder / "constraints.txt"
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        constraints.write_text("\n".join(pin for pin in pins if pin.split("==")[0].replace("_", "-") not in FREE))
        packages = [*line.split(), "pytest", "pytest-timeout", "-e", ".[notebook,run]"]
        run(interpreter, "-m", "pip", "install", "--quiet", "-c", constraints, *packages)
        ready.write_text(wanted(line))
    versions = run(interpreter, "-c", "import tensorflow, keras; print(tensorflow.__version__, keras.__version__)")
    assert versions.split() == re.findall(r"==(\S+)", line)
    return interpreter


def test_other_requirements_make_another_environment(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    seen = set()
    for requirements, pins in (("numpy", "numpy==2.0"), ("numpy", "numpy==2.1"), ("numpy<3", "numpy==2.1")):
        (tmp_path / "pyproject.toml").write_text(requirements)
        (tmp_path / "constraints.txt").write_text(pins)
        seen |= {wanted("keras==3.10.0"), wanted("keras==3.11.0")}
    assert len(seen) == 6


@pytest.mark.timeout(3600)
def test_the_package_passes_its_tests(python):
    files = [f"tests/test_{part}.py" for part in TESTS]
    out = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files)
    assert re.search(r"^\d+ passed", out.splitlines()[-1])


@pytest.mark.timeout(3600)
def test_the_claims_of_the_chapters_hold(python, tmp_path):
    run(python.with_name("tlutils"), "run", "--jobs", "2", "--out", tmp_path)
