"""The whole book in one file: the zip, the joined document behind the PDF, and the PDF itself."""

import unicodedata
import zipfile

import build_book
import print_book
import pytest
from bs4 import BeautifulSoup

PAGES = build_book.pages()


def test_without_a_rendered_book_it_says_how_to_make_one(tmp_path, capsys):
    for kind in ("pdf", "zip"):
        assert print_book.main([kind, "--site", str(tmp_path)]) == 1
        assert "build_book.py" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_chromium_it_says_what_is_missing(tmp_path, capsys, monkeypatch):
    (tmp_path / "index.html").write_text("<html></html>")
    monkeypatch.setattr(print_book, "find_chromium", lambda driver: None)
    assert print_book.main(["pdf", "--site", str(tmp_path)]) == 1
    assert "apt-get install chromium" in capsys.readouterr().err


def test_the_zip_holds_the_whole_site_and_is_the_same_each_time(site, tmp_path):
    for name in ("a.zip", "b.zip"):
        assert print_book.main(["zip", "--site", str(site), "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        names = set(packed.namelist())
        assert {f"transfer-learning/{page}.html" for page in ("index", *PAGES)} <= names
        assert packed.read("transfer-learning/index.html") == (site / "index.html").read_bytes()
    assert {f"transfer-learning/{p.relative_to(site).as_posix()}" for p in site.rglob("*") if p.is_file()} - names == {
        "transfer-learning/.buildinfo"
    }


@pytest.fixture(scope="module")
def joined(site):
    """The document that is printed."""
    return BeautifulSoup(print_book.join(site), "html.parser")


def test_every_page_is_in_the_joined_document_once(joined):
    assert [article["id"] for article in joined.select("article")] == [print_book.anchor(page) for page in PAGES]


def test_ids_are_unique_and_links_between_pages_lead_to_them(site, joined):
    ids = [tag["id"] for tag in joined.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in joined.find_all("a", href=True)]
    assert [link for link in links if link.startswith("#") and link[1:] not in ids] == []
    assert [link for link in links if not link.startswith(("#", "http", "mailto:"))] == []
    assert "#notebooks-05_fine_tuning" in links
    pictures = [image["src"] for image in joined.find_all("img") if not image["src"].startswith("data:")]
    assert pictures and all((site / picture).is_file() for picture in pictures)


def test_what_a_page_folds_away_is_on_paper(joined):
    assert joined.select("article .solution") and not joined.select("article .dropdown")
    assert all(box.has_attr("open") for box in joined.select("article details"))
    for figure in joined.select("figure.tl-live"):
        assert len(figure.select("img")) == 1 and ":" in figure.select_one(".tl-still").get_text()
    assert not joined.select("script[src*='live.js']")


@pytest.mark.slow
def test_the_pdf_has_numbered_contents_and_links_that_work(site, tmp_path, capsys):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    code = print_book.main(["pdf", "--site", str(site), "--out", str(tmp_path / "book.pdf")])
    if "Chromium is missing" in capsys.readouterr().err:
        pytest.skip("no chromium on this machine: nothing is printed (apt-get install chromium)")
    assert code == 0
    assert not (site / "_print.html").exists()
    reader = pypdf.PdfReader(tmp_path / "book.pdf")
    # without blanks, and with ligatures taken apart: releases of pypdf and Chromium differ in both
    texts = ["".join(unicodedata.normalize("NFKC", page.extract_text()).split()) for page in reader.pages]
    assert "Transferlearning,stepbystep" in texts[0] and "Contents" in texts[1]
    for page in PAGES:
        place = reader.named_destinations[f"/{print_book.anchor(page)}"]
        number = reader.get_destination_page_number(place)
        soup = BeautifulSoup((site / f"{page}.html").read_text("utf-8"), "html.parser")
        title = "".join(soup.h1.find(string=True).split())
        assert title in texts[number]
        # header and page number are printed in the margins; some releases extract them first, some last
        assert texts[number].startswith(f"{title}{number + 1}") or texts[number].endswith(str(number + 1))
        assert f"{title}{number + 1}" in "".join(texts[1:number]), f"{title} stands on page {number + 1}"
    assert [item.title for item in reader.outline if not isinstance(item, list)][1] == "Your first transfer"
