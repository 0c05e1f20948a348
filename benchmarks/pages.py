"""(k) Rendering the book, and what a reader waits for: until a page is interactive, and how much of it is its own.

python benchmarks/pages.py

Each page is opened in Chromium with nothing in its cache, from a server on this machine. It counts as interactive when
its scripts have started (sliders and quizzes answer) and the last task is over that keeps the page busy for more than
50 ms, such as setting formulas. Its own weight is what it loads beside what all pages share: the libraries in
``_static`` and the index of the search.
"""

import functools
import http.server
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import build_book
import print_book

INTERACTIVE, WEIGHT, BUILD = 1.5, 1.5, 60  # seconds, megabytes, seconds
SHARED = "/_static/", "/searchindex.js"

BUSY = """
window.busyUntil = 0;
new PerformanceObserver(list => {
    for (const task of list.getEntries()) window.busyUntil = task.startTime + task.duration;
}).observe({type: "longtask", buffered: true});
"""
SETTLED = """async () => {
    await window.MathJax?.startup?.promise;
    await new Promise(done => setTimeout(done, 500));
    const [page] = performance.getEntriesByType("navigation");
    return Math.max(page.domContentLoadedEventEnd, window.busyUntil) / 1000;
}"""


def measure(repetitions=3):
    """Rows of the table."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        notebooks, out = build_book.ROOT / "notebooks", Path(folder)
        build = table.seconds(build_book.build, notebooks, out)
        yield table.Row("k", "rendering the book", "what it may take", [(build, BUILD)], goal=1)

        names = ["index", *build_book.pages()]
        with serve(out / "html") as server, sync_playwright() as driver:
            chromium = print_book.find_chromium(driver)
            if chromium is None:
                raise RuntimeError("Chromium is missing (apt-get install chromium); the pages were not opened")
            browser = driver.chromium.launch(executable_path=chromium, args=print_book.ARGUMENTS)
            address = f"http://127.0.0.1:{server.server_port}"
            runs = np.array([[visit(browser, f"{address}/{name}.html") for name in names] for _ in range(repetitions)])
            browser.close()
    for column, what, limit, unit in (
        (0, "until {} is interactive", INTERACTIVE, "s"),
        (1, "weight of {}", WEIGHT, "MB"),
    ):
        worst = np.median(runs[:, :, column], axis=0).argmax()
        for place, name in ((0, "the front page"), (worst, f"the worst page ({names[worst]})")):
            pairs = [(value, limit) for value in runs[:, place, column]]
            yield table.Row("k", what.format(name), "what it may take", pairs, unit, goal=1)


def visit(browser, url):
    """Open a page with an empty cache; return the seconds until it is interactive and its own weight in megabytes."""
    context, weights = browser.new_context(), []
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.add_init_script(BUSY)
    page.on("response", lambda answer: None if any(part in answer.url for part in SHARED) else weights.append(answer))
    page.goto(url)
    seconds = page.evaluate(SETTLED)
    own = [answer for answer in weights if urlsplit(answer.url).scheme == "http"]
    megabytes = sum(len(answer.body()) for answer in own) / 1e6
    context.close()
    return seconds, megabytes


class serve:
    """A quiet server of a folder on this machine, for a ``with`` block."""

    def __init__(self, folder):
        handler = functools.partial(_Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server

    def __exit__(self, *problem):
        self.server.shutdown()
        self.server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Say nothing: a line a file would bury the table."""


if __name__ == "__main__":
    sys.exit(table.main(measure))
