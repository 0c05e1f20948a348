"""The rendered book, as readers get it: built from the committed notebooks and read as files."""

import json
import posixpath
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_book
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = build_book.pages()
CHAPTERS = build_book.chapters()
OPENED = ["index", *PAGES]


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
    silent = [
        (page, picture.get("src", "")[:60])
        for page in OPENED
        for picture in soups[f"{page}.html"].article.find_all("img")
        if len(picture.get("alt", "").split()) < 2
    ]
    assert silent == []


def test_headings_are_in_order(soups):
    """One title a page, and no level is left out: a reader who hears the page finds the way by its headings."""
    wrong = []
    for page in OPENED:
        levels = [
            int(heading.name[1])
            for heading in soups[f"{page}.html"].article.find_all(["h1", "h2", "h3", "h4", "h5", "h6"])
        ]
        if levels[:1] != [1] or levels.count(1) != 1 or any(b > a + 1 for a, b in pairwise(levels)):
            wrong.append((page, levels))
    assert wrong == []


def test_edit_this_page_opens_what_people_edit(soups):
    repository = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]
    for page in PAGES:
        (link,) = soups[f"{page}.html"].select("a.btn-source-edit-button")
        start, _, file = link["href"].partition(f"/edit/{repository['branch']}/")
        assert start == repository["url"]
        assert (ROOT / file).is_file() and file.endswith(".md"), f"{page}: there is no {file}"


def test_each_page_leads_to_the_next_and_back(soups):
    for page, following in pairwise(PAGES):
        after = soups[f"{page}.html"].select_one("a.right-next")
        before = soups[f"{following}.html"].select_one("a.left-prev")
        folders = posixpath.dirname(page), posixpath.dirname(following)
        assert posixpath.normpath(posixpath.join(folders[0], after["href"])) == f"{following}.html"
        assert posixpath.normpath(posixpath.join(folders[1], before["href"])) == f"{page}.html"


def test_the_chapter_map_names_every_chapter_with_its_time(soups):
    rows = soups["index.html"].select(".tl-map tbody tr")
    assert [posixpath.splitext(row.a["href"])[0] for row in rows] == CHAPTERS
    for row in rows:
        time, level = (cell.get_text(strip=True) for cell in row.find_all("td")[3:])
        assert time.endswith((" s", "–")) and int(time.split(" min · ")[0]) % 5 == 0, time
        assert level in ("easy", "medium", "demanding")


def test_every_moving_figure_of_a_chapter_is_on_its_page(soups):
    """As many as the notebook has widgets, with the same pictures."""
    for chapter in CHAPTERS:
        notebook = json.loads((ROOT / f"{chapter}.ipynb").read_text("utf-8"))
        views = [o for c in notebook["cells"] for o in c.get("outputs", []) if build_book._VIEW in o.get("data", {})]
        figures = soups[f"{chapter}.html"].select("figure.tl-live")
        assert len(figures) == len(views) > 0
        assert all(len(figure.select("img:not([hidden])")) == 1 and figure.input for figure in figures)
    assert len(soups["index.html"].select("figure.tl-live")) == 1


def test_a_download_is_the_notebook_that_was_run(site):
    for chapter in CHAPTERS:
        assert (site / "_sources" / f"{chapter}.ipynb").read_bytes() == (ROOT / f"{chapter}.ipynb").read_bytes()


def test_a_chapter_weighs_less_than_a_megabyte_and_a_half(site, soups):
    for page in OPENED:
        file = site / f"{page}.html"
        pictures = {
            file.parent / picture["src"]
            for picture in soups[f"{page}.html"].select("article img[src]")
            if not picture["src"].startswith("data:")
        }
        assert file.stat().st_size + sum(picture.stat().st_size for picture in pictures) < 1.5e6, page


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
