"""An environment that imitates Colab: what versions.txt lists, nothing more, and a stand-in for google.colab."""

import contextlib
import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "_build" / "colab"
WITHOUT_WHEELS = (3, 13)  # the first Python for which some of these versions have no wheels


def make():
    """Return the interpreter of the environment in ``_build/colab``; it is made where it is missing or outdated."""
    interpreter = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready, wanted = FOLDER / ".ready", hashlib.sha256((HERE / "versions.txt").read_bytes()).hexdigest()
    if not ready.is_file() or ready.read_text() != wanted:
        venv.create(FOLDER, with_pip=True, clear=True)
        # Without dependencies: Colab's list is what there is, even where a package would like to have more.
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
        subprocess.run([interpreter, *install, "-r", HERE / "versions.txt"], check=True, env=variables())
        ready.write_text(wanted)
    return interpreter


def variables(**more):
    """The environment variables of a process on the imitated machine: of this clone it sees the stand-in alone."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "TF_", "TLUTILS_", "JUPYTER"))}
    index = {k: v for k, v in os.environ.items() if k.startswith("PIP_") and "INDEX" in k}
    return own | index | {"PYTHONPATH": str(HERE), "PYTHONNOUSERSITE": "1"} | more


@contextlib.contextmanager
def served_wheel(folder):
    """Build the package's wheel into a folder and serve it from this machine; gives its address."""
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    subprocess.run(build, check=True)
    (wheel,) = Path(folder).glob("tlutils-*.whl")

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{wheel.name}"
        finally:
            server.shutdown()
