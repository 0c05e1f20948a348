"""The rendered book and a browser, once for all tests of this folder."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import print_book
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the rendered book; a warning of Sphinx is an error of the build."""
    out = tmp_path_factory.mktemp("book")
    command = [sys.executable, str(ROOT / "scripts" / "build_book.py"), "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"the book does not build:\n{run.stdout}\n{run.stderr}"
    return out / "html"


@pytest.fixture(scope="session")
def soups(site):
    """Every rendered page, parsed, by its path below the site."""
    pages = sorted(site.rglob("*.html"))
    return {
        page.relative_to(site).as_posix(): BeautifulSoup(page.read_text("utf-8"), "html.parser")
        for page in pages
        if "_static" not in page.relative_to(site).parts
    }


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = print_book.find_chromium(driver)
        if chromium is None:
            pytest.skip("no chromium on this machine: pages are not opened (apt-get install chromium)")
        browser = driver.chromium.launch(executable_path=chromium, args=print_book.ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser):
    """A function that opens an address and returns the tab and a list of what goes wrong there, which goes on growing.

    Noted are requests to another host, missing files, errors of scripts and errors on the console.
    """
    contexts = []

    def open_page(url, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(180_000)  # a busy machine takes its time
        contexts.append(context)
        tab, troubles = context.new_page(), []
        here = urlsplit(url).netloc

        def asked(request):
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob") and parts.netloc != here:
                troubles.append(f"foreign request: {request.url}")

        tab.on("request", asked)
        tab.on("requestfailed", lambda request: troubles.append(f"missing: {request.url}"))
        tab.on("response", lambda response: troubles.append(f"missing: {response.url}") if not response.ok else None)
        tab.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
        tab.on("console", lambda line: troubles.append(f"console: {line.text}") if line.type == "error" else None)
        tab.goto(url)
        return tab, troubles

    yield open_page
    for context in contexts:
        context.close()
