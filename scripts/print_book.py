"""Make one file of the rendered book.

    python scripts/print_book.py pdf    the whole book on paper: _build/transfer-learning.pdf
    python scripts/print_book.py zip    the pages, to unpack and read without a network: _build/transfer-learning.zip

Both read ``_build/html``, which ``scripts/build_book.py`` makes. The PDF is printed by Chromium.
"""

import argparse
import datetime
import html
import io
import json
import posixpath
import shutil
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import build_book  # noqa: E402

NAME = "transfer-learning"
ARGUMENTS = ["--no-sandbox", "--disable-background-networking"]  # a container lets nobody open a sandbox

# Writes the numbers of the pages into the contents; gives level, title and page of each entry.
FILL = """numbers => [...document.querySelectorAll("#contents a")].map(link => {
    const number = numbers[link.getAttribute("href").slice(1)];
    link.lastElementChild.textContent = number;
    return [link.className === "level1" ? 1 : 2, link.firstElementChild.textContent, number];
})"""


class PrintError(Exception):
    """The file cannot be made; the message says what is missing."""


# --- PDF --------------------------------------------------------------------------------------------------------------


def pdf(site, target):
    """Print the whole book: cover, contents, the pages in reading order; links between them work.

    Solutions and answers are unfolded. A figure that moves stands still at its first position. Code that a page folds
    away is left out: most of it draws figures.

    Args:
        site (Path): The rendered book.
        target (Path): The PDF.

    Raises:
        PrintError: The book has not been rendered, or Chromium or a package is missing.
    """
    if not (site / "index.html").is_file():
        raise PrintError(f"{site} holds no rendered book; make it first: python scripts/build_book.py")
    try:
        import pikepdf
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise PrintError(f"{error.name} is missing; install what requirements.txt lists") from error
    joined = site / "_print.html"  # beside the pages, so that their pictures and style sheets are found
    with sync_playwright() as driver:
        chromium = find_chromium(driver)
        if chromium is None:
            raise PrintError(
                "Chromium is missing, which prints the pages; install it (apt-get install chromium, or "
                "python -m playwright install chromium) and try again"
            )
        joined.write_text(join(site), encoding="utf-8")
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            page = browser.new_page()
            page.set_default_timeout(600_000)
            page.goto(joined.as_uri())
            page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }")
            options = {"prefer_css_page_size": True, "tagged": True}
            # Chromium cannot write on which page a link leads: print once, look it up, and print again
            with pikepdf.open(io.BytesIO(page.pdf(**options))) as first:
                sheets = {sheet.obj.objgen: number for number, sheet in enumerate(first.pages, 1)}
                numbers = {name.lstrip("/"): sheets[place[0].objgen] for name, place in first.Root.Dests.items()}
            listed = page.evaluate(FILL, numbers)
            with pikepdf.open(io.BytesIO(page.pdf(**options))) as second:
                with second.open_outline() as outline:
                    for level, title, number in listed:
                        parent = outline.root if level == 1 else outline.root[-1].children
                        parent.append(pikepdf.OutlineItem(title, number - 1))
                second.save(target, object_stream_mode=pikepdf.ObjectStreamMode.generate)  # half as large
        finally:
            browser.close()
            joined.unlink()


def find_chromium(driver):
    """Return the path of a Chromium or Chrome on this machine, or ``None``; ``driver`` is Playwright's."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    own = driver.chromium.executable_path
    return own if Path(own).is_file() else None


def join(site):
    """Return all pages of the book as one HTML document."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [("", [toc["root"]])]
    parts += [(part["caption"], [chapter["file"] for chapter in part["chapters"]]) for part in toc["parts"]]
    articles, contents, running, style, scripts = [], [], [], "", ""
    for caption, names in parts:
        if caption:
            contents.append(f"<h2>{html.escape(caption)}</h2>")
        for name in names:
            soup = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
            style = style or sheets(soup, name)
            scripts = scripts or formulas(soup, name)
            article = prepare(soup, name)
            contents.append(entries(article, name))
            title = json.dumps(article.h1.get_text(strip=True), ensure_ascii=False)
            running.append(f"@page {anchor(name)} {{ @top-center {{ content: {title}; }} }}")
            articles.append(str(article))
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head><meta charset="utf-8"><title>{html.escape(configuration()["title"])}</title>
{style}<link rel="stylesheet" href="_static/print.css">
<style>{" ".join(running)}</style>
{scripts}</head>
<body><main class="bd-content">
{cover()}
<nav id="contents"><h1>Contents</h1>
{"".join(contents)}
</nav>
{"".join(articles)}
</main></body></html>
"""


def configuration():
    """Return what ``_config.yml`` says."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def cover():
    """Return the first page: title, authors, licences, address and date."""
    book = configuration()
    return f"""<header id="cover"><h1>{html.escape(book["title"])}</h1>
<p>{html.escape(book["author"])}</p>
<footer><p>{html.escape(book["repository"]["url"])}<br>Printed on {datetime.date.today()}</p>
{book["html"]["extra_footer"]}</footer></header>"""


def sheets(soup, name):
    """Return the links to a page's style sheets, as seen from the root."""
    links = soup.head.find_all("link", rel="stylesheet")
    return "".join(f'<link rel="stylesheet" href="{local(link["href"], name)}">\n' for link in links)


def formulas(soup, name):
    """Return the scripts that set formulas, if a page has any."""
    found = [script for script in soup.find_all("script") if "mathjax" in str(script).lower()]
    for script in found:
        if script.get("src"):
            script["src"] = local(script["src"], name)
    return "".join(map(str, found))


def local(url, name):
    """Return a relative link of a page as seen from the root, without what asks for a version."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), urlsplit(url).path))


def prepare(soup, name):
    """Return a page's article, unfolded, with ids and links that are unique in the whole book."""
    article = soup.article
    for gone in article.select(
        ".headerlink, .viewcode-link, details.above-input, script, .tl-control button, details.hide > summary"
    ):
        gone.decompose()
    for box in article.select("details"):
        box["open"] = ""
    for box in article.select(".dropdown"):
        box["class"] = [word for word in box["class"] if word not in ("dropdown", "toggle")]
    for quiz in article.select(".tl-quiz"):  # nothing to choose on paper, and a fieldset breaks badly across pages
        for box in quiz.select("input"):
            box.decompose()
        for box in [quiz, *quiz.select("legend, label, details, summary")]:
            box["class"] = [*box.get("class", []), box.name]
            box.name = "div"
    for figure in article.select("figure.tl-live"):
        shown = figure.select_one("img:not([hidden])")
        for picture in figure.select("img[hidden]"):
            picture.decompose()
        control = figure.select_one(".tl-control")
        still = soup.new_tag("p", attrs={"class": "tl-still"})
        still.string = f"{control.label.get_text()}: {shown['data-label']}"
        control.replace_with(still)
    seen = set()
    for tag in article.find_all(id=True):
        if tag["id"] in seen:  # sphinx-exercise calls the content of every exercise the same
            del tag["id"]
        else:
            seen.add(tag["id"])
            tag["id"] = anchor(name, tag["id"])
    names = set(build_book.pages())
    for tag in article.find_all(["a", "img"]):
        attribute = "href" if tag.name == "a" else "src"
        url = urlsplit(tag.get(attribute, ""))
        if url.scheme or url.netloc or not (url.path or url.fragment):
            continue
        path = local(url.geturl(), name) if url.path else f"{name}.html"
        if tag.name == "img":
            tag["src"] = path
        elif path.removesuffix(".html") in names:
            tag["href"] = f"#{anchor(path.removesuffix('.html'), unquote(url.fragment))}"
        else:
            tag.unwrap()  # the index, the source of a module: not in the PDF
    article["id"] = anchor(name)
    article["style"] = f"page: {anchor(name)}"
    return article


def anchor(name, fragment=""):
    """Return the id of a page, or of a place on it, in the joined document."""
    return f"{name.replace('/', '-')}--{fragment}" if fragment else name.replace("/", "-")


def entries(article, name):
    """Return the lines of the contents for one page: its title and its sections."""
    lines = [(1, anchor(name), article.h1)]
    lines += [(2, section["id"], section.h2) for section in article.select("section > section[id]") if section.h2]
    return "".join(
        f'<a class="level{level}" href="#{html.escape(place)}"><span>{html.escape(heading.get_text())}</span>'
        f'<span class="page"></span></a>\n'
        for level, place, heading in lines
    )


# --- zip --------------------------------------------------------------------------------------------------------------


def archive(site, target):
    """Pack the rendered book; the same pages give the same bytes.

    Raises:
        PrintError: The book has not been rendered.
    """
    if not (site / "index.html").is_file():
        raise PrintError(f"{site} holds no rendered book; make it first: python scripts/build_book.py")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for file in sorted(path for path in site.rglob("*") if path.is_file() and path.name != ".buildinfo"):
            entry = zipfile.ZipInfo(f"{NAME}/{file.relative_to(site).as_posix()}")
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            packed.writestr(entry, file.read_bytes())


# --- command line -----------------------------------------------------------------------------------------------------


def main(arguments=None):
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Make one file of the rendered book.")
    parser.add_argument("kind", choices=("pdf", "zip"))
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="the rendered book")
    parser.add_argument("--out", type=Path, help=f"the file (default: {NAME}.pdf or {NAME}.zip beside the book)")
    options = parser.parse_args(arguments)
    site = options.site.resolve()
    target = (options.out or site.parent / f"{NAME}.{options.kind}").resolve()
    try:
        (pdf if options.kind == "pdf" else archive)(site, target)
    except PrintError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
