"""Many settings measured side by side, on processes of one core each."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def measured(function, settings, jobs):
    """Yield ``function(setting)`` for each setting, in order. The function must be one of a module's own names."""
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes to come: threads of several processes would wait for each other
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, settings)


def add_argument(parser):
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one core each (default: %(default)s)")
