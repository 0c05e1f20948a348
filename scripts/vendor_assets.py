"""Fetch what other people made for the rendered book into book/assets/lib, so that the book needs no network.

To move to another release change its version below and in book/assets/README.md, run ``python
scripts/vendor_assets.py`` (needs npm, which checks the packages against the registry's hashes) and ``make test``, and
look at a page with formulas and at the glossary. Run it as well when a Chinese term with a new character has come in.
"""

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from fontTools import subset

BOOK = Path(__file__).resolve().parents[1] / "book"
LIB = BOOK / "assets" / "lib"

# npm package: (version, destination folder, {pattern in the package: folders below the destination})
LIBRARIES = {
    # The fonts lie where tex-mml-chtml.js looks for them.
    "mathjax": (
        "3.2.2",
        "mathjax",
        {
            "LICENSE": ["."],
            "es5/tex-mml-chtml.js": ["."],
            "es5/output/chtml/fonts/woff-v2/*.woff": ["output/chtml/fonts/woff-v2"],
        },
    ),
}

# For the Chinese terms of the glossary: a whole Chinese font has megabytes, their few hundred characters 60 KB.
FONT = ("@fontsource/noto-sans-sc", "5.3.0", "files/noto-sans-sc-chinese-simplified-400-normal.woff")


def chinese(text):
    """The characters of all Chinese terms in a page's source."""
    return set("".join(re.findall(r'<span lang="zh-Hans">([^<]+)</span>', text)))


def fetch(package, version, scratch):
    """Download one npm package and return the folder it unpacks to."""
    command = ["npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", str(scratch)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(scratch / name) as archive:
        archive.extractall(scratch / package, filter="data")
    return scratch / package / "package"


def fetch_font(scratch):
    """The characters of the glossary's Chinese terms, cut out of the font."""
    package, version, file = FONT
    source, target = fetch(package, version, scratch), LIB / "noto-sans-sc"
    options = subset.Options(flavor="woff", hinting=False)
    font = subset.load_font(str(source / file), options)
    cutter = subset.Subsetter(options)
    cutter.populate(text="".join(chinese((BOOK / "glossary.md").read_text(encoding="utf-8"))))
    cutter.subset(font)
    target.mkdir(parents=True, exist_ok=True)
    subset.save_font(font, str(target / "glossary.woff"), options)
    shutil.copyfile(source / "LICENSE", target / "LICENSE")
    print(f"{package} {version} → {target}")


def main():
    """Replace every vendored file; the licence texts that the packages do not carry stay as they are."""
    if shutil.which("npm") is None:
        raise SystemExit(
            "npm is needed to fetch the libraries; the committed copies in book/assets/lib work without it"
        )
    with tempfile.TemporaryDirectory() as scratch:
        for package, (version, destination, wanted) in LIBRARIES.items():
            source = fetch(package, version, Path(scratch))
            for old in (LIB / destination).rglob("*"):
                if old.is_file() and old.name != "LICENSE":
                    old.unlink()
            for pattern, folders in wanted.items():
                files = sorted(source.glob(pattern))
                if not files:
                    raise SystemExit(f"{package}@{version} holds no {pattern}; look where this release keeps it")
                for target in (LIB / destination / folder for folder in folders):
                    target.mkdir(parents=True, exist_ok=True)
                    for file in files:
                        shutil.copyfile(file, target / file.name)
            print(f"{package} {version} → {LIB / destination}")
        fetch_font(Path(scratch))


if __name__ == "__main__":
    main()
