"""The rendered book, as readers get it: built here from the committed notebooks, then read and opened in Chromium."""

import importlib.util
import posixpath
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("build_book", ROOT / "scripts" / "build_book.py")
build_book = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build_book)

PAGES = build_book.pages()
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
OPENED = ["index", *PAGES]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the rendered book; a warning of Sphinx is an error of the build."""
    out = tmp_path_factory.mktemp("book")
    command = [sys.executable, str(ROOT / "scripts" / "build_book.py"), "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"the book does not build:\n{run.stdout}\n{run.stderr}"
    return out / "html"


@pytest.fixture(scope="module")
def soups(site):
    """Every rendered page, parsed, by its path below the site."""
    pages = sorted(site.rglob("*.html"))
    return {
        page.relative_to(site).as_posix(): BeautifulSoup(page.read_text("utf-8"), "html.parser")
        for page in pages
        if "_static" not in page.relative_to(site).parts
    }


# --- what is in the files ---------------------------------------------------------------------------------------------


def test_every_page_is_there(soups):
    assert {f"{page}.html" for page in OPENED} <= set(soups)


def test_the_front_door_is_the_landing_page(soups):
    """index.html shows the landing page itself; a redirect would flash and be blank in a preview."""
    front, landing = soups["index.html"], soups[f"{build_book.LANDING}.html"]
    assert not front.find("meta", attrs={"http-equiv": "Refresh"})
    assert front.article.get_text() == landing.article.get_text()
    linked = {posixpath.normpath(link["href"].split("#")[0]) for link in front.find_all("a", href=True)}
    assert {f"{chapter}.html" for chapter in CHAPTERS} <= linked


def test_links_inside_the_book_lead_somewhere(site, soups):
    names = {
        page: {tag["id"] for tag in soup.find_all(id=True)}
        | {tag["name"] for tag in soup.find_all("a", attrs={"name": True})}
        for page, soup in soups.items()
    }
    dead = []
    for page, soup in soups.items():
        for tag in soup.find_all(["a", "link", "img", "script", "form"]):
            url = urlsplit(tag.get("href") or tag.get("src") or tag.get("action") or "")
            if url.scheme or url.netloc:
                continue
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(url.path))) if url.path else page
            )
            if not (site / target).exists():
                dead.append(f"{page}: {url.geturl()} (no such file)")
            elif url.fragment and tag.name == "a" and target in names and unquote(url.fragment) not in names[target]:
                dead.append(f"{page}: {url.geturl()} (no such place on the page)")
    assert not dead, "\n".join(dead)


def test_nothing_is_loaded_from_another_host(soups):
    loaded = {
        (page, tag.get("src") or tag.get("href"))
        for page, soup in soups.items()
        for tag in soup.select("script[src], img[src], iframe[src], link[rel=stylesheet], link[rel=preload]")
    }
    assert [item for item in sorted(loaded) if urlsplit(item[1]).scheme not in ("", "data")] == []


def test_pictures_have_alternative_texts(soups):
    """All but the plots of the chapters, whose text is around them: Jupyter gives those no alternative text."""
    silent = [
        (page, picture.get("src", "")[:60])
        for page, soup in soups.items()
        if soup.article
        for picture in soup.article.find_all("img")
        if not picture.find_parent(class_="cell_output") and not picture.get("alt", "").strip()
    ]
    assert silent == []


def test_colab_links_follow_the_configuration(soups):
    slug, branch = build_book.address()
    for chapter in CHAPTERS:
        links = {link["href"] for link in soups[f"{chapter}.html"].find_all("a", href=True)}
        assert f"https://colab.research.google.com/github/{slug}/blob/{branch}/{chapter}.ipynb" in links
    wrong = {
        (page, link["href"])
        for page, soup in soups.items()
        for link in soup.find_all("a", href=True)
        if "colab.research.google.com/github/" in link["href"] and f"/github/{slug}/blob/{branch}/" not in link["href"]
    }
    assert wrong == set()


def test_the_book_does_not_show_where_it_was_built(site, soups):
    assert [page for page, soup in soups.items() if str(ROOT) in str(soup) or str(site.parent) in str(soup)] == []


# --- what a browser makes of them -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: pages are not opened, sliders not moved (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def tabs(browser, site):
    """A function that opens a page and notes what went wrong there: foreign requests, missing files, script errors."""
    contexts, troubles = [], []

    def open_page(page, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(120_000)  # a busy machine takes its time
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: foreign(request.url))
        tab.on("requestfailed", lambda request: troubles.append(f"missing: {request.url}"))
        tab.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
        tab.on("console", lambda line: troubles.append(f"console: {line.text}") if line.type == "error" else None)
        tab.goto((site / f"{page}.html").as_uri())
        views = tab.locator('script[type="application/vnd.jupyter.widget-view+json"]').count()
        if views and options.get("java_script_enabled", True):
            # a widget is drawn once its pictures have arrived
            tab.wait_for_function(
                "count => document.querySelectorAll('.cell_output .jupyter-widgets img, .cell_output .slider').length"
                " >= count",
                arg=views,
            )
            tab.wait_for_timeout(300)
        return tab

    def foreign(url):
        if urlsplit(url).scheme not in ("file", "data", "blob"):
            troubles.append(f"foreign request: {url}")

    open_page.troubles = troubles
    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("page", OPENED)
def test_page_opens_clean_and_its_sliders_move_their_pictures(tabs, page):
    tab = tabs(page)
    cards = tab.locator(".tl-live").all()
    assert cards or page not in ["index", build_book.LANDING, *CHAPTERS], "this page has no figure to move"
    for number, card in enumerate(cards):
        slider = card.locator("[role=slider], input[type=range]")
        picture = card.locator("img:visible")
        start = picture.screenshot()
        value, greatest = slider.evaluate(
            "s => [s.value ?? s.getAttribute('aria-valuenow'), s.max || s.getAttribute('aria-valuemax')]"
        )
        at_end = float(value) >= float(greatest)
        there, back = ("ArrowLeft", "ArrowRight") if at_end else ("ArrowRight", "ArrowLeft")
        slider.press(there)
        tab.wait_for_timeout(250)
        assert picture.screenshot() != start, f"slider {number} does not move its picture"
        slider.press(back)
        tab.wait_for_timeout(250)
        assert picture.screenshot() == start, f"slider {number} does not come back"
        assert picture.get_attribute("alt"), f"the picture of slider {number} has no alternative text"
        named = slider.evaluate("s => s.getAttribute('aria-label') || (s.labels && s.labels[0]?.textContent)")
        assert named, f"slider {number} has no name for a screen reader"
        if card.locator(".widget-play").count():  # Font Awesome once broke it at the first step (see fa-config.js)
            card.locator(".widget-play button").first.click()
            tab.wait_for_timeout(1500)
            assert picture.screenshot() != start, f"the play button of slider {number} does not play"
    assert tabs.troubles == []


@pytest.mark.parametrize("page", OPENED)
def test_every_formula_is_set_without_a_network(tabs, soups, page):
    formulas = soups[f"{page}.html"].select("article .math")
    if not formulas:
        pytest.skip("no formula on this page")
    tab = tabs(page)
    tab.wait_for_function("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    tab.evaluate("() => MathJax.startup.promise")
    unset = tab.evaluate(
        """() => [...document.querySelectorAll("article .math")].filter(e => {
            const set = e.querySelector("mjx-container");
            return !set || set.querySelector("mjx-merror") || (e.offsetParent && !set.getBoundingClientRect().width);
        }).map(e => e.textContent.slice(0, 80))"""
    )
    assert unset == []
    assert tabs.troubles == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_weighs_less_than_a_megabyte_and_a_half(site, soups, chapter):
    page = site / f"{chapter}.html"
    pictures = {page.parent / picture["src"] for picture in soups[f"{chapter}.html"].select("article img[src]")}
    pictures = [picture for picture in pictures if picture.is_file()]
    assert page.stat().st_size + sum(picture.stat().st_size for picture in pictures) < 1.5e6


@pytest.mark.parametrize("page", OPENED)
def test_a_phone_does_not_scroll_sideways(tabs, page):
    tab = tabs(page, width=360, color_scheme="dark")
    tab.wait_for_timeout(200)
    too_wide = tab.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .slice(0, 5).map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`)"""
    )
    assert too_wide == [] and tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert tabs.troubles == []


def test_the_landing_page_without_scripts(tabs):
    tab = tabs("index", java_script_enabled=False)
    assert tab.locator(".tl-figure img:visible").count() == 1
    assert not tab.locator(".tl-figure input").is_visible()
