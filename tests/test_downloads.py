"""Data sets from a server on this machine that does everything servers do wrong."""

import contextlib
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tlutils import data, downloads
from tlutils.data import DataError
from tlutils.downloads import Archive, Contents, Download

FILES = {
    "ants/1.jpg": b"one" * 1000,
    "ants/2.jpg": b"two" * 500,
    "bees/3.jpg": bytes(range(256)) * 40,
    "LICENSE.txt": b"do what you like",
}
PICTURES = {name: content for name, content in FILES.items() if name.endswith(".jpg")}


def tar(members, compression="gz"):
    """The bytes of a tar archive: each member a name with its content, or a ``TarInfo`` without any."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def special(name, kind, target="", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


def packed(members):
    """The bytes of a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def link_in_zip(name, target):
    """A member of a zip archive that is a symbolic link."""
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return {member: target}


def below(folder, members=FILES):
    return {f"{folder}/{name}": content for name, content in members.items()}


def contents(folder):
    """{relative path: bytes} of all files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Server:
    """Answers from ``pages``: path to bytes, a status code, or a function that is given the handler."""

    def __init__(self):
        self.pages, self.requests = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                page = server.pages.get(self.path, 404)
                if callable(page):
                    page(self)
                elif isinstance(page, int):
                    self.send_error(page)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(page)))
                    self.end_headers()
                    self.wfile.write(page)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of all data sets, which does not exist yet."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "datasets"


@pytest.fixture
def offer(server, home):
    """A function that puts an archive on the server and returns its ``Download``."""

    def offer(page, name="insects.tgz", pinned=None, **options):
        server.pages[f"/{name}"] = page
        pinned = page if pinned is None else pinned
        archive = Archive(
            url=f"{server.url}/{name}",
            folder="insect_photos",
            saved_as=name,
            bytes=len(pinned),
            sha256=hashlib.sha256(pinned).hexdigest(),
        )
        download = Download("insects", "insects", (archive,), Contents("*/*.jpg", len(PICTURES)))
        return replace(download, **options)

    return offer


def unpinned(download, **options):
    """The same without size and hash of the archive."""
    return replace(download, archives=(replace(download.archives[0], bytes=None, sha256=None),), **options)


def exact(members=PICTURES, pattern="*/*.jpg"):
    """``Contents`` that hold the very bytes of these files, added up by hand."""
    lines = [f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in sorted(members)]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Contents(pattern, len(members), sum(map(len, members.values())), digest)


def refused(download, home, *words):
    """Fetch what must be refused: the message has all words, and nothing is left."""
    with pytest.raises(DataError) as error:
        download.fetch()
    for word in words:
        assert word in str(error.value)
    assert not [path for path in home.rglob("*") if path.name not in {a.saved_as for a in download.archives}]
    assert download.locate() is None
    return str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# The right file


@pytest.mark.parametrize("name", ["insects.tgz", "insects.tar", "insects.zip"])
def test_the_right_file_is_fetched_once(offer, server, home, name):
    make = {"insects.tgz": tar, "insects.tar": lambda files: tar(files, ""), "insects.zip": packed}[name]
    download = offer(make({**below("insect_photos"), "README": b"beside it"}), name)
    assert download.locate() is None and not home.exists()
    assert download.fetch() == download.locate() == home / "insects"
    assert contents(home) == below("insects")  # neither the archive nor what lies beside the folder in it
    assert download.fetch() == home / "insects" and server.requests == [f"/{name}"]


def test_several_archives_make_one_data_set(offer, server, home):
    sides = {"train": PICTURES, "test": {"ants/9.jpg": b"nine"}}
    for side, files in sides.items():
        server.pages[f"/{side}.zip"] = packed(below(side, files))
    archives = tuple(Archive(f"{server.url}/{side}.zip", side, f"x_{side}.zip", becomes=side) for side in sides)
    download = Download("insects", "insects", archives, Contents("*/*/*.jpg", 4))
    assert contents(download.fetch()) == below("train", PICTURES) | below("test", sides["test"])
    server.pages["/test.zip"] = 500
    refused(replace(download, name="others", folder="others"), home / "others", "the server answered 500", "test.zip")
    assert [path.name for path in home.iterdir()] == ["insects"]


def test_a_folder_deep_in_the_archive_and_deep_in_the_place(offer, home):
    page = packed({"photos-123/README.md": b"", **below("photos-123/insects")})
    download = offer(page, "insects.zip", folder="photos/insects")
    download = replace(download, archives=(replace(download.archives[0], folder="photos-123/insects"),))
    assert contents(download.fetch()) == FILES
    assert contents(home) == below("photos/insects")


def test_what_was_downloaded_by_hand_needs_no_network(offer, server, home):
    download = offer(tar(below("insect_photos")))
    home.mkdir(parents=True)
    saved = home / "insects.tgz"
    saved.write_bytes(server.pages.pop("/insects.tgz"))
    before = saved.read_bytes()
    assert contents(download.fetch()) == FILES
    assert server.requests == [] and saved.read_bytes() == before


def test_a_wrong_file_saved_by_hand_is_named_and_kept(offer, server, home):
    download = offer(tar(below("insect_photos")))
    home.mkdir(parents=True)
    (home / "insects.tgz").write_bytes(b"half of it")
    refused(download, home, str(home / "insects.tgz"), "it has 10 bytes, expected", "Delete it")
    assert (home / "insects.tgz").read_bytes() == b"half of it" and server.requests == []


def test_the_bar_is_drawn_on_a_terminal_only(offer, capsys):
    download = offer(tar(below("insect_photos")))
    download.fetch()
    assert capsys.readouterr() == ("", "")
    replace(download, folder="again").fetch(progress=True)
    printed = capsys.readouterr()
    assert printed.out == "" and "100%" in printed.err


def test_two_at_once_fetch_once(offer, server):
    page, began, go = tar(below("insect_photos")), threading.Event(), threading.Event()

    def slow(handler):
        began.set()
        assert go.wait(30)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page)

    download, found = offer(slow, pinned=page), []
    threads = [threading.Thread(target=lambda: found.append(download.fetch())) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert began.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert found == [download.path] * 3 and len(server.requests) == 1
    assert contents(download.path) == FILES


# ---------------------------------------------------------------------------------------------------------------------
# The wrong file


def test_a_wrong_hash_is_refused(offer, home):
    page = tar(below("insect_photos"), "")
    wrong = page.replace(b"one", b"eno")
    message = refused(offer(wrong, pinned=page), home, "/insects.tgz", "save it as", str(home / "insects.tgz"))
    for content in (page, wrong):
        assert hashlib.sha256(content).hexdigest() in message


def test_a_wrong_size_is_refused(offer, home):
    page = tar(below("insect_photos"))
    refused(offer(page + b"more", pinned=page), home, f"it has more than {len(page):,} bytes")
    refused(offer(page[:-4], pinned=page), home, f"it has {len(page) - 4:,} bytes, expected {len(page):,}")


def test_a_body_that_never_ends_is_given_up(offer, home, monkeypatch):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            while True:
                handler.wfile.write(b"more" * 10_000)

    monkeypatch.setattr(downloads, "_MOST_BYTES", 10**6)
    refused(unpinned(offer(endless, pinned=b"")), home, "it has more than 1,000,000 bytes")


def test_a_body_that_breaks_off_is_refused(offer, home):
    page = tar(below("insect_photos"))

    def half(handler, length=True):
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page[: len(page) // 2])

    for wanted in (offer(half, pinned=page), unpinned(offer(half, pinned=page))):
        refused(wanted, home, "could not fetch http://127.0.0.1", "/insects.tgz", "more expected")
    silent = offer(lambda handler: half(handler, length=False), pinned=page)
    refused(silent, home, f"it has {len(page) // 2:,} bytes, expected {len(page):,}")
    refused(unpinned(silent), home, "it cannot be unpacked")


def test_a_file_that_is_not_there_is_an_answer(offer, home):
    refused(offer(404, pinned=b"something"), home, "/insects.tgz", "the server answered 404 Not Found", "save it as")


def test_a_server_that_is_not_there(offer, server, home):
    download = offer(b"something")
    server.close()
    refused(download, home, "could not fetch", "refused")


def test_a_page_in_place_of_an_archive(offer, home):
    refused(unpinned(offer(b"<html>Please log in</html>")), home, "it is neither a tar nor a zip archive")


def test_a_damaged_archive(offer, home):
    files = {"ants/1.jpg": os.urandom(5000)}
    for make, words in ((packed, "it cannot be unpacked (Bad CRC-32"), (tar, "at least one was changed")):
        page = bytearray(make(below("insect_photos", files)))
        page[len(page) // 2] ^= 255  # in the middle of the picture, which cannot be compressed
        refused(unpinned(offer(bytes(page)), contents=exact(files)), home, words)


@pytest.mark.parametrize("make", [tar, packed])
@pytest.mark.parametrize("name", ["ants/1.jpg/2.jpg", "ants/" + 300 * "x"])
def test_an_archive_that_no_disk_could_hold(offer, home, make, name):
    page = make(below("insect_photos", FILES | {name: b"a file in a file, or with an endless name"}))
    refused(offer(page), home, "/insects.tgz", "it cannot be unpacked (")


def test_an_archive_of_something_else(offer, home):
    refused(unpinned(offer(tar(below("cars")))), home, "it holds no folder insect_photos")


OUT = "leads out of its folder"
LINK = "is a link or a special file"
ESCAPES = {
    "tar-up": (tar({"../evil.txt": b"evil"}), OUT),
    "tar-up-later": (tar({"insect_photos/../../evil.txt": b"evil"}), OUT),
    "tar-absolute": (tar({"/tmp/tlutils_evil.txt": b"evil"}), OUT),
    "tar-drive": (tar({"C:\\evil.txt": b"evil"}), OUT),
    "tar-backslash": (tar({"..\\evil.txt": b"evil"}), OUT),
    "tar-link-out": (tar({"x": special("insect_photos/x", tarfile.SYMTYPE, "../../evil.txt")}), LINK),
    "tar-link-absolute": (tar({"x": special("insect_photos/x", tarfile.SYMTYPE, "/etc")}), LINK),
    "tar-through-link": (
        tar({"x": special("insect_photos", tarfile.SYMTYPE, ".."), "insect_photos/evil.txt": b"evil"}),
        LINK,
    ),
    "tar-hard-link": (tar({"x": special("insect_photos/x", tarfile.LNKTYPE, "../../evil.txt")}), LINK),
    "tar-pipe": (tar({"x": special("insect_photos/x", tarfile.FIFOTYPE)}), LINK),
    "tar-huge": (tar({"x": special("insect_photos/x", tarfile.REGTYPE, size=10**13)}), "10,000,000,000,000 bytes"),
    "zip-up": (packed({"../evil.txt": b"evil"}), OUT),
    "zip-up-later": (packed({"insect_photos/../../evil.txt": b"evil"}), OUT),
    "zip-absolute": (packed({"/tmp/tlutils_evil.txt": b"evil"}), OUT),
    "zip-drive": (packed({"C:\\evil.txt": b"evil"}), OUT),
    "zip-backslash": (packed({"..\\evil.txt": b"evil"}), OUT),
    "zip-link-out": (packed(link_in_zip("insect_photos/x", "../../evil.txt")), LINK),
    "zip-link-absolute": (packed(link_in_zip("insect_photos/x", "/etc")), LINK),
}


@pytest.mark.parametrize("page, words", ESCAPES.values(), ids=ESCAPES)
def test_an_archive_that_leaves_its_folder_is_refused_whole(offer, home, tmp_path, page, words):
    refused(offer(page), home, "/insects.tgz", words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not Path("/tmp/tlutils_evil.txt").exists()


@pytest.mark.parametrize("make", [tar, packed])
def test_too_much_is_refused(offer, home, monkeypatch, make):
    download = offer(make(below("insect_photos")))
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_MOST_BYTES", 4000)
        refused(download, home, "it unpacks to 2 files with 4,500 bytes")
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_MOST_FILES", 3)
        refused(download, home, "it unpacks to 4 files")
    assert contents(download.fetch()) == FILES


# ---------------------------------------------------------------------------------------------------------------------
# Archives without a lasting hash: the files are pinned


def test_pinned_files_are_accepted_from_any_archive_of_them(offer):
    for i, page in enumerate((tar(below("insect_photos")), packed(below("insect_photos")))):
        download = unpinned(offer(page), contents=exact(), folder=f"insects {i}")
        assert contents(download.fetch()) == FILES


@pytest.mark.parametrize(
    "change, words",
    [
        ({"ants/1.jpg": b"eno" * 1000}, "at least one was changed"),
        ({"ants/1.jpg": b"one"}, "its files have"),
        ({"ants/4.jpg": b"four"}, "it holds 4 files */*.jpg, expected 3"),
    ],
)
def test_other_files_than_the_pinned_are_refused(offer, home, change, words):
    download = unpinned(offer(tar(below("insect_photos", FILES | change))), contents=exact())
    refused(download, home, "/insects.tgz", words, "save it as")
    home.mkdir(exist_ok=True)
    (home / "insects.tgz").write_bytes(tar(below("insect_photos", FILES | change)))
    refused(download, home, str(home / "insects.tgz"), words, "Delete it to have it fetched")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"ants/1.jpg": b"eno" * 1000}, "ants/1.jpg has the SHA-256"),
        ({"ants/1.jpg": b"one"}, "ants/1.jpg has 3 bytes, expected 3,000"),
        ({"ants/4.jpg": b"four"}, "ants/4.jpg does not belong to it"),
        ({"ants/1.jpg": None, "ants/2.jpg": None}, "it lacks ants/1.jpg and 1 more"),
    ],
)
def test_with_a_listing_the_file_is_named(offer, home, tmp_path, monkeypatch, change, words):
    lines = [f"{hashlib.sha256(content).hexdigest()} {len(content)} {name}\n" for name, content in PICTURES.items()]
    (tmp_path / "insects.txt").write_text("".join(lines))
    monkeypatch.setattr(downloads, "__file__", str(tmp_path / "downloads.py"))
    listed = replace(exact(), listing="insects.txt")
    assert contents(unpinned(offer(tar(below("insect_photos"))), contents=listed, folder="right").fetch()) == FILES
    files = {name: content for name, content in (FILES | change).items() if content is not None}
    download = unpinned(offer(tar(below("insect_photos", files))), contents=replace(exact(), listing="insects.txt"))
    with pytest.raises(DataError, match=words):
        download.fetch()
    assert [path.name for path in home.iterdir()] == ["right"]


def test_hidden_files_do_not_count(offer):
    files = FILES | {"ants/.DS_Store": b"a Mac was here", "__MACOSX/1.jpg": b"and here", "ants/._1.jpg": b"and here"}
    assert unpinned(offer(tar(below("insect_photos", files))), contents=exact()).fetch()


# ---------------------------------------------------------------------------------------------------------------------
# What is there already


def put(folder, files=FILES):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("place", ["insects", "insects_extracted/insects", "insects/insects"])
def test_what_is_there_needs_no_network(offer, server, home, place):
    download = offer(404, pinned=b"never asked for", elsewhere=("insects_extracted/insects", "insects/insects"))
    put(home / place)
    assert download.locate() == download.fetch() == home / place
    assert server.requests == []


def test_a_half_finished_folder_is_neither_taken_nor_touched(offer, server, home):
    download = offer(tar(below("insect_photos")))
    half = {"ants/1.jpg": FILES["ants/1.jpg"]}
    put(home / "insects", half)
    for call in (download.locate, download.fetch):
        with pytest.raises(DataError) as error:
            call()
        message = str(error.value)
        assert str(home / "insects") in message and "holds 1 files */*.jpg, expected 3" in message
        assert "tlutils datasets get insects" in message
    assert contents(home) == below("insects", half) and server.requests == []


def test_half_a_folder_elsewhere_does_not_stand_in_the_way(offer, home):
    download = offer(tar(below("insect_photos")), elsewhere=("insects_extracted",))
    put(home / "insects_extracted", {"ants/1.jpg": b"one"})
    assert download.locate() is None
    assert download.fetch() == download.locate() == home / "insects"


def test_a_file_in_its_place(offer, home):
    home.mkdir(parents=True)
    (home / "insects").write_bytes(b"")
    with pytest.raises(DataError, match="it is not a folder"):
        offer(tar(below("insect_photos"))).fetch()


def test_a_file_cut_short_is_seen_at_a_glance_and_a_changed_one_when_it_is_read(offer, home):
    download = unpinned(offer(tar(below("insect_photos"))), contents=exact())
    folder = download.fetch()
    (folder / "ants" / "1.jpg").write_bytes(b"eno" * 1000)
    assert download.locate() == folder
    with pytest.raises(DataError, match="at least one was changed"):
        download.fetch()
    (folder / "ants" / "1.jpg").write_bytes(b"one" * 999)
    with pytest.raises(DataError, match="its files have"):
        download.locate()


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted

FETCH = """
import os, signal, sys
from tlutils import downloads
from tlutils.downloads import Archive, Contents, Download

die = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
url, where = sys.argv[1:]
if where == "unpacking":
    extract, calls = downloads.tarfile.TarFile.extract, []
    def third(*arguments, **options):
        calls.append(extract(*arguments, **options))
        len(calls) == 3 and die()
    downloads.tarfile.TarFile.extract = third
if where == "placing":
    rename = os.rename
    downloads.os.rename = lambda source, target: die() if str(target).endswith("/insects") else rename(source, target)
archive = Archive(url, "insect_photos", "insects.tgz")
print("begin", flush=True)
Download("insects", "insects", (archive,), Contents("*/*.jpg", 3)).fetch()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("where", ["downloading", "unpacking", "placing"])
def test_killed_it_leaves_nothing_that_looks_finished_and_ends_with_the_same_bytes(offer, server, home, where):
    page, half = tar(below("insect_photos")), threading.Event()
    download = unpinned(offer(page))

    def stuck(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page[: len(page) // 2])
        handler.wfile.flush()
        half.set()
        handler.rfile.read(1)  # until the other side is gone

    if where == "downloading":
        server.pages["/insects.tgz"] = stuck
    command = [sys.executable, "-c", FETCH, f"{server.url}/insects.tgz", where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if where == "downloading":
            assert half.wait(60)
            process.kill()
        assert process.wait(60) == -signal.SIGKILL, process.stderr.read()
    assert download.locate() is None
    left = list(home.iterdir())
    assert left and all(path.name.startswith(".tlutils-insects") for path in left)  # it was killed on its way

    server.pages["/insects.tgz"] = page
    assert contents(download.fetch()) == FILES
    assert contents(home) == below("insects")  # of the first attempt nothing is left


def test_interrupted_it_leaves_nothing(offer, home, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        offer(tar(below("insect_photos"))).fetch()
    assert list(home.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(offer, home):
    home.parent.mkdir()
    home.write_bytes(b"a file where the folder belongs")
    with pytest.raises(DataError, match=r"cannot write the data set 'insects'.*set KERAS_HOME") as error:
        offer(tar(below("insect_photos"))).fetch()
    assert str(home) in str(error.value)


def test_a_full_disk_is_told_and_leaves_nothing(offer, home, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "ants/1.jpg")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    refused(offer(tar(below("insect_photos"))), home, "ants/1.jpg: No space left on device", "Make room")


def test_without_pooch_it_says_what_to_install(offer, home, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    refused(offer(tar(below("insect_photos"))), home, "pip install 'tlutils[data]'")


# ---------------------------------------------------------------------------------------------------------------------
# The data sets of the book


def test_the_listing_of_hymenoptera_adds_up_to_what_is_pinned():
    wanted = data.registry()["hymenoptera"].download.contents
    lines = [line.split(" ", 2) for line in Path(downloads.__file__).with_name(wanted.listing).read_text().splitlines()]
    assert (len(lines), sum(int(size) for _, size, _ in lines)) == (wanted.files, wanted.bytes)
    text = "".join(f"{digest}  {name}\n" for digest, _, name in sorted(lines, key=lambda line: line[2]))
    assert hashlib.sha256(text.encode()).hexdigest() == wanted.sha256
    sides = [name.rsplit("/", 1)[0] for _, _, name in lines]
    assert {side: sides.count(side) for side in sides} == {
        **{"train/ants": 124, "train/bees": 121},
        **{"val/ants": 70, "val/bees": 83},
    }


@pytest.mark.parametrize("name", ["flowers", "beans", "hymenoptera", "spoken_digits"])
def test_a_data_set_of_the_book_that_is_here_is_what_is_pinned(name):
    download = data.registry()[name].download
    folder = download.locate()
    if folder is None:
        pytest.skip(f"{name} is not in {downloads.datasets_home()}")
    assert download.fetch() == folder


def test_each_archive_of_the_book_is_pinned_by_itself_or_by_its_files():
    fetched = {name: source.download for name, source in data.registry().items() if source.download}
    assert list(fetched) == ["flowers", "beans", "hymenoptera", "spoken_digits"]
    for name, download in fetched.items():
        assert download.name == name
        for archive in download.archives:
            assert archive.sha256 or download.contents.sha256
            assert archive.sha256 is None or (len(archive.sha256), archive.bytes > 0) == (64, True)
    saved = [archive.saved_as for download in fetched.values() for archive in download.archives]
    assert len(set(saved)) == len(saved) == 6
