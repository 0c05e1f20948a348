"""Data sets from the network: fetched, checked, unpacked in a hidden folder, and only then put in their place.

Whatever happens on the way (a wrong file, a broken connection, Ctrl-C, a killed process), the place where a data set is
looked for holds all of it or nothing. What is pinned is either the SHA-256 of each archive or, where the archive is
made anew by its server and has no lasting hash, the names, sizes and contents of the files in it.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath

from tlutils.notes import DataError, listed

__all__ = ["Archive", "Contents", "Download", "datasets_home"]

_TIMEOUT = 30  # seconds without a byte after which a server is given up
# More than any data set of the book has, and little enough for a laptop: beyond them an archive is taken for a bomb.
_MOST_FILES, _MOST_BYTES = 100_000, 2_000_000_000
# What goes wrong on a sound archive too; whatever else the system refuses while unpacking, the archive asked for.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


def datasets_home():
    """The folder of all data sets, which Keras uses too: ``$KERAS_HOME/datasets``, by default in ``~/.keras``."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets"


@dataclass(frozen=True)
class Archive:
    """A tar or zip file on a server, and which part of it is wanted.

    Attributes:
        url: Where it is.
        folder: The folder inside the archive that is wanted.
        becomes: What that folder is called inside the data set; ``""`` means it is the data set.
        saved_as: A file of this name in ``datasets_home()`` is taken instead, for machines without a network.
        bytes: Its size, or ``None`` if not known.
        sha256: Its hash (hex), or ``None`` if it has no lasting one.
    """

    url: str
    folder: str
    saved_as: str
    becomes: str = ""
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Contents:
    """What the folder of a data set holds.

    Attributes:
        pattern: Which files count, as ``Path.glob`` has it. Hidden ones never do.
        files: How many there are.
        bytes: The size of all of them together, or ``None`` if not known.
        sha256: The SHA-256 (hex) of the text that ``sha256sum`` prints for all files in the order of their paths, or
            ``None`` if not known. One number stands for all contents and all names.
        listing: Name of a file of this package with a line ``sha256 bytes path`` for each file, or ``None``. With it, a
            difference can be named.
    """

    pattern: str
    files: int
    bytes: int | None = None
    sha256: str | None = None
    listing: str | None = None

    def difference(self, folder, contents=False):
        """What is wrong with a folder, in words, or ``None``.

        Args:
            folder: ``Path`` of a folder.
            contents: Whether to read and hash each file. Without it only names and sizes are compared, which shows a
                folder that was not finished, but not a file that was changed.
        """
        found = self._sizes(folder)
        if self._listed:
            if missing := sorted(self._listed.keys() - found.keys()):
                return f"it lacks {listed(missing, 1)}"
            if surplus := sorted(found.keys() - self._listed.keys()):
                return f"{listed(surplus, 1)} does not belong to it"
            for path, (_, size) in self._listed.items():
                if found[path] != size:
                    return f"{path} has {found[path]:,} bytes, expected {size:,}"
        if len(found) != self.files:
            return f"it holds {len(found):,} files {self.pattern}, expected {self.files:,}"
        total = sum(found.values())
        if self.bytes is not None and total != self.bytes:
            return f"its files have {total:,} bytes together, expected {self.bytes:,}"
        if not contents or self.sha256 is None:
            return None
        hashes = {path: _sha256(folder / path) for path in sorted(found)}
        for path, (wanted, _) in self._listed.items():
            if hashes[path] != wanted:
                return f"{path} has the SHA-256 {hashes[path]}, expected {wanted}"
        lines = "".join(f"{digest}  {path}\n" for path, digest in hashes.items())
        together = hashlib.sha256(lines.encode()).hexdigest()
        if together != self.sha256:
            return f"the list of its files has the SHA-256 {together}, expected {self.sha256}: at least one was changed"
        return None

    @cached_property
    def _listed(self):
        """{path: (sha256, bytes)}, empty without a listing."""
        if self.listing is None:
            return {}
        lines = Path(__file__).with_name(self.listing).read_text(encoding="utf-8").splitlines()
        parts = (line.split(" ", 2) for line in lines)
        return {path: (digest, int(size)) for digest, size, path in parts}

    def _sizes(self, folder):
        """{path relative to ``folder``, with ``/``: bytes} of the files that count."""
        sizes = {}
        for path in folder.glob(self.pattern):
            name = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
                sizes[name.as_posix()] = path.stat().st_size
        return sizes


@dataclass(frozen=True)
class Download:
    """A data set that comes over the network, once.

    Attributes:
        name: What it is called, in errors and on the command line.
        folder: Where it lies in ``datasets_home()``, with ``/``.
        archives: What it is unpacked from.
        contents: What must be there in the end.
        elsewhere: Other folders in ``datasets_home()`` in which it may lie already, such as those of Keras' tutorials.
    """

    name: str
    folder: str
    archives: tuple[Archive, ...]
    contents: Contents
    elsewhere: tuple[str, ...] = ()

    @property
    def bytes(self):
        """How much is fetched, or ``None`` if that is not known."""
        sizes = [archive.bytes for archive in self.archives]
        return None if None in sizes else sum(sizes)

    @property
    def path(self):
        """The folder to which it is fetched."""
        return datasets_home() / self.folder

    def locate(self):
        """The folder of the data set if all of it is on this machine, else ``None``. Looks at names and sizes only.

        Raises:
            DataError: The place where it belongs is taken by something that is not the whole data set.
        """
        for place in (self.folder, *self.elsewhere):
            folder = datasets_home() / place
            if folder.is_dir() and self.contents.difference(folder) is None:
                return folder
        if os.path.lexists(self.path):
            problem = self.contents.difference(self.path) if self.path.is_dir() else "it is not a folder"
            raise self._not_whole(self.path, problem)
        return None

    def fetch(self, progress=None):
        """Find the data set on this machine or fetch it; in both cases check all that is known of its contents.

        A download that was broken off starts again from the beginning. If another process is fetching the same data
        set, this one waits for it.

        Args:
            progress: Whether to draw a bar on stderr while archives come in. Default: if stderr is a terminal.

        Returns:
            Path: The folder that holds it.

        Raises:
            DataError: It cannot be fetched, or what is there or was fetched is not what is expected. What was fetched
                is gone then; what was there before is never touched.
        """
        if folder := self.locate():
            if problem := self.contents.difference(folder, contents=True):
                raise self._not_whole(folder, problem)
            return folder
        if progress is None:
            progress = sys.stderr is not None and sys.stderr.isatty()
        hidden = datasets_home() / f".tlutils-{self.name}"
        try:
            datasets_home().mkdir(parents=True, exist_ok=True)
            with _alone(hidden.with_name(hidden.name + ".lock")), _emptied(hidden) as work:
                if folder := self.locate():  # another process was faster
                    return folder
                whole = self._assemble(work, progress)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.rename(whole, self.path)  # one step, so that nobody ever sees half of it
        except OSError as error:
            where = error.filename or datasets_home()
            raise DataError(
                f"cannot write the data set {self.name!r}: {where}: {error.strerror or error}. Make room, or set "
                "KERAS_HOME to a folder of your own, and try again"
            ) from error
        return self.path

    def _assemble(self, work, progress):
        """Put the data set together below ``work`` and return its folder, which has been checked."""
        whole, sources = work / "whole", []
        for number, archive in enumerate(self.archives):
            saved = datasets_home() / archive.saved_as
            if saved.is_file():
                file, source, advice = saved, saved, "Delete it to have it fetched, or save the right one there"
            else:
                source, advice = archive.url, f"Try again later; or get it in another way and save it as {saved}"
                file = work / f"archive {number}"
            sources.append(str(source))
            try:
                if file != saved:
                    self._download(archive, file, progress, advice)
                _check_archive(archive, file)
                _unpack(file, work / f"unpacked {number}")
                part = work / f"unpacked {number}" / archive.folder
                if not part.is_dir():
                    raise _Refused(f"it holds no folder {archive.folder}")
            except _Refused as refused:
                raise DataError(f"refused {source} for the data set {self.name!r}: {refused}. {advice}") from refused
            target = whole / archive.becomes
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(part, target)
        if problem := self.contents.difference(whole, contents=True):
            raise DataError(
                f"refused {' and '.join(sources)} for the data set {self.name!r}: {problem}. It may have been changed "
                f"since this version of the book. {advice}"
            )
        return whole

    def _download(self, archive, file, progress, advice):
        """Fetch an archive with pooch. What comes is checked afterwards, like a file that was saved by hand."""
        try:
            import pooch
            import requests
        except ModuleNotFoundError as error:
            raise DataError(
                f"the data set {self.name!r} is fetched with {error.name}, which is not installed: "
                "pip install 'tlutils[data]'"
            ) from None
        downloader = pooch.HTTPDownloader(
            progressbar=progress and find_spec("tqdm") is not None,
            chunk_size=1 << 16,
            timeout=_TIMEOUT,
            headers={"Accept-Encoding": "identity"},  # or a .tgz might be decompressed on the way
        )
        try:
            with open(file, "wb") as opened:
                downloader(archive.url, _Bounded(opened, archive.bytes or _MOST_BYTES), None)
        except requests.RequestException as error:
            raise DataError(
                f"could not fetch {archive.url} for the data set {self.name!r}: {_reason(error)}. {advice}"
            ) from error

    def _not_whole(self, folder, problem):
        return DataError(
            f"{folder} is not the whole data set {self.name!r}: {problem}. Move it away or delete it, then fetch the "
            f"data set: tlutils datasets get {self.name}"
        )


class _Refused(Exception):
    """An archive is not used; the message says why."""


class _Bounded:
    """A file for as many bytes as are expected, so that a server which never ends does not fill the disk."""

    def __init__(self, file, most):
        self._file, self._most = file, most
        self.flush = file.flush

    def write(self, content):
        if self._file.tell() + len(content) > self._most:
            raise _Refused(f"it has more than {self._most:,} bytes")
        self._file.write(content)


def _check_archive(archive, file):
    size = file.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        raise _Refused(f"it has {size:,} bytes, expected {archive.bytes:,}")
    if archive.sha256 is not None and (found := _sha256(file)) != archive.sha256:
        raise _Refused(f"it has the SHA-256 {found}, expected {archive.sha256}")


def _unpack(file, folder):
    """Unpack a tar or zip archive into a new folder. Nothing is ever written beside that folder.

    Raises:
        _Refused: It is no archive or a damaged one, or holds a path that leaves the folder, a link or another special
            file, or far too much. Data sets have no use for links, so that even harmless ones are refused.
    """
    folder.mkdir()
    try:
        if tarfile.is_tarfile(file):
            _unpack_tar(file, folder)
        elif zipfile.is_zipfile(file):
            _unpack_zip(file, folder)
        else:
            raise _Refused("it is neither a tar nor a zip archive")
    except _Refused:
        raise
    except Exception as error:  # a damaged archive makes its readers raise many kinds
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise _Refused(f"it cannot be unpacked ({error})") from error


def _unpack_tar(file, folder):
    if not hasattr(tarfile, "data_filter"):
        raise _Refused("this Python cannot unpack it safely: install 3.11.4 or newer")
    with tarfile.open(file) as archive:
        budget = _Budget()
        for member in archive:
            budget.allow(member.name, member.size, member.isfile() or member.isdir())
            archive.extract(member, folder, filter="data")


def _unpack_zip(file, folder):
    with zipfile.ZipFile(file) as archive:
        budget = _Budget()
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # what Unix wrote; elsewhere 0
            budget.allow(member.orig_filename, member.file_size, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            archive.extract(member, folder)


class _Budget:
    """Lets the members of an archive pass one by one, as long as they are harmless and not too much."""

    def __init__(self):
        self._files = self._bytes = 0

    def allow(self, name, size, is_plain):
        path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
        if path.anchor or ".." in path.parts:
            raise _Refused(f"the path {name!r} in it leads out of its folder")
        if not is_plain:
            raise _Refused(f"{name!r} in it is a link or a special file")
        self._files += 1
        self._bytes += size
        if self._files > _MOST_FILES or self._bytes > _MOST_BYTES:
            raise _Refused(f"up to {name!r} it unpacks to {self._files:,} files with {self._bytes:,} bytes")


@contextlib.contextmanager
def _emptied(folder):
    """A folder for work in progress, without what a killed process left in it; gone afterwards, whatever happens."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _alone(path):
    """Hold the lock file ``path``: one process at a time. The system lets go of it when a process dies."""
    while True:
        with open(path, "ab") as file:
            _lock(file)
            if not _is_at(file, path):
                continue  # its last holder has removed it: lock the one that is there now
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows keeps an open file; an empty hidden one stays there
                    path.unlink()
            return


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file):
    if os.name == "nt":
        import msvcrt

        while True:
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                time.sleep(0.5)
    import fcntl

    with contextlib.suppress(OSError):  # some network file systems have no locks: do without
        fcntl.flock(file, fcntl.LOCK_EX)


def _reason(error):
    """What went wrong with a request, without the layers that libraries wrap around it."""
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    inner = error
    while isinstance(cause := getattr(inner, "reason", None) or next(iter(inner.args), None), Exception):
        inner = cause
    return str(cause or inner)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
