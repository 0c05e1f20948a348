"""The words of the book: terms and their glossary, symbols and their notation, the API's chapters, the prose pages."""

import ast
import re
import unicodedata
from bisect import bisect
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

import tlutils
from tlutils import backbones, data, evaluation

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
CHAPTERS = sorted((ROOT / "notebooks" / "text").glob("*.md"))
# Not prose: lists of words, symbols, functions and works.
LISTS = {"glossary", "notation", "api", "references"}
PAGES = [*CHAPTERS, *sorted(page for page in BOOK.glob("*.md") if page.stem not in LISTS)]
DECKS = sorted((BOOK / "slides").glob("*.md"))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
each_deck = pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)


def read(name):
    return (BOOK / name).read_text(encoding="utf-8")


def line_of(text, position):
    return bisect([match.start() for match in re.finditer("\n", text)], position - 1) + 1


# --- what of a page is prose ------------------------------------------------------------------------------------------

# Directives whose content is text to be read; the content of all others is code, a formula, a figure or a table.
READ = {"admonition", "note", "tip", "warning", "exercise", "solution", "grid", "grid-item-card", "container"}
# What stands in a line of prose and is none: comments, formulas, code, links, pictures, tags, bare addresses, and what
# every chapter says in the same words: the kinds of exercises, and what it takes to run.
BESIDE = re.compile(
    r"<!--.*?-->|\$\$.*?\$\$|\$[^$]+\$|\{[\w:.-]+\}`[^`]*`|`[^`]*`|!?\[[^\]]*\]\([^)]*\)|<[^<>]+>|https?://\S+"
    r"|\*\*(?:Recall|Do|Explain|Stretch)\.\*\*|\*\*Time and memory\.\*\*.*?\n\n",
    re.DOTALL,
)
TERM = re.compile(r"\{term\}`(?:([^`<]*?)\s*<([^`>]*)>|([^`]*))`", re.DOTALL)


def blank(text):
    """``text`` in the same length without words; what stands on either side does not become neighbours."""
    return re.sub(r"[^\n]", "\0", text)


def prose(text):
    """``text`` in the same length, with everything taken out that is no running text; of links to terms, all stay."""
    front = re.match(r"---\n.*?\n---\n", text, re.DOTALL)
    lines, fences = [], []  # of each open fence, its marker and whether its content is read
    for line in (blank(front[0]) + text[front.end() :] if front else text).splitlines(keepends=True):
        fence = re.match(r"\s*(`{3,}|:{3,})(?:\{([\w-]+)\})?(.*)", line)
        reading = not fences or fences[-1][1]
        if fence and fences and not fence[2] and not fence[3].strip() and fence[1].startswith(fences[-1][0]):
            fences.pop()
            lines.append(blank(line))
        elif fence and reading:
            # a solution that holds cells is fenced at both ends: the cells between are fences of their own
            fences.append((fence[1], fence[2] in READ))
            lines.append(blank(line))
        elif not reading:
            lines.append(blank(line))
        elif re.match(r"\s*(#+ |:[\w-]+:|\([\w-]+\)=\s*$|\||\+\+\+|%)", line):  # heading, option, label, table, comment
            kept = [(link.start(), link.end()) for link in TERM.finditer(line)]
            inside = (any(start <= i < end for start, end in kept) for i in range(len(line)))
            lines.append("".join(c if keep or c == "\n" else "\0" for c, keep in zip(line, inside)))
        else:
            lines.append(line)
    return "".join(lines)


# --- terms ------------------------------------------------------------------------------------------------------------


@cache
def glossary():
    """Each term with its definition."""
    body = re.search(r"```\{glossary\}\n(.*?)\n```", read("glossary.md"), re.DOTALL)[1]
    entries = [chunk.split("\n", 1) for chunk in re.split(r"\n\n(?=\S)", body)]
    return {term: re.sub(r"^  ", "", definition, flags=re.MULTILINE) for term, definition in entries}


# Other forms of a term that are uses of it. The plural and another hyphenation are forms of every term.
FORMS = {
    "batch normalisation": ["BatchNorm", "batch normalization"],
    "Bonferroni's correction": ["Bonferroni"],
    "calibration": ["calibrated", "calibrate"],
    "fine-tuning": ["fine-tune", "fine-tuned", "fine-tunes"],
    "freezing": ["freeze", "freezes", "frozen"],
    "logits": ["logit"],
    "McNemar's test": ["McNemar's exact test"],
    "mean absolute error": ["MAE"],
    "mean squared error": ["MSE"],
    "memorisation": ["memorise", "memorised", "memorises"],
    "overfitting": ["overfit", "over-fitting", "over-fit"],
    "preprocessing": ["preprocess", "preprocessed"],
    "pretraining": ["pretrained", "pretrain", "pretrains"],
    "principal component analysis": ["PCA"],
    "regularisation": ["regularization", "regularise", "regularised"],
    "standardisation": ["standardise", "standardised", "standardises"],
    "support vector machine": ["SVM"],
    "weight": ["parameter"],
    "Wilson interval": ["Wilson's interval"],
}
# Words that also have a sense of every day or of plain mathematics (to draw a circle, groups of digits, with 95%
# confidence). Which one is meant cannot be told by the letters, so they need not be linked.
ORDINARY = {
    *("bias", "confidence", "domain", "draw", "filter", "group", "loss", "power", "precision", "prior", "profile"),
    *("recall", "regret", "slice", "task", "threshold", "variance"),
}
# A link to the longer term explains the shorter one as well.
EXPLAINS = {"linear probe": "probe"}


def forms(term):
    """Every way to write a term, as one regular expression."""
    words = {term, *FORMS.get(term, [])}
    words |= {f"{word[:-1]}ies" if word.endswith("y") else f"{word}s" for word in words}
    words |= {f"{word}es" for word in words if word.endswith(("s", "x"))}
    longest_first = sorted(words, key=len, reverse=True)
    return "|".join(re.sub(r"\\?[ -]", r"[\\s-]+", re.escape(word)) for word in longest_first)


@cache
def any_term():
    """Finds the next term, the longest where one holds another: “feature map”, and not “feature”."""
    named = sorted(glossary(), key=lambda term: (-len(re.split(r"[ -]", term)), -len(term)))
    groups = "|".join(f"(?P<t{number}>{forms(term)})" for number, term in enumerate(named))
    return re.compile(rf"(?<![\w-])(?:{groups})(?![\w-])", re.IGNORECASE), named


def links(text):
    """Where a page links to which term: position and term, in the glossary's spelling."""
    known = {term.casefold(): term for term in glossary()}
    for link in TERM.finditer(text):
        target = " ".join((link[2] or link[3]).split())
        yield link.start(), known.get(target.casefold(), target)


def unlinked(text):
    """(line, term, words) for each term of the glossary whose first use on a page is not a link to its entry."""
    text, linked, used = prose(text), {}, {}
    for position, term in links(text):
        linked.setdefault(term, position)
    for longer, shorter in EXPLAINS.items():
        if longer in linked:
            linked[shorter] = min(linked[longer], linked.get(shorter, len(text)))
    pattern, named = any_term()
    for found in pattern.finditer(BESIDE.sub(lambda match: blank(match[0]), text)):
        used.setdefault(named[int(found.lastgroup[1:])], found.start())
    return sorted(
        (line_of(text, place), term, " ".join(text[place : place + 60].replace("\0", " ").split()))
        for term, place in used.items()
        if term not in ORDINARY and place < linked.get(term, len(text))
    )


@each_page
def test_a_term_is_linked_where_it_is_first_used(page):
    lines = [f"{page.name}:{line}: {term!r} in “{words}…”" for line, term, words in unlinked(page.read_text("utf-8"))]
    assert not lines, "link them, as {term}`word` or {term}`word <entry>`:\n" + "\n".join(lines)


@pytest.mark.parametrize(
    "text, missing",
    [
        ("A {term}`backbone`, and again a backbone.", []),
        ("A backbone, and then a {term}`backbone`.", ["backbone"]),
        ("Two backbones.\n\n```{code-cell} ipython3\nhead = 1\n```\n", ["backbone"]),
        ("## The head\n\n`head` and $head$, [a head](head.md), <!-- head -->\n", []),
        ("```{exercise}\n:label: head\n\nSolve a head.\n```\n", ["head"]),
        ("````{solution-start} x\n:class: dropdown\n````\n\nA head.\n\n````{solution-end}\n````\n", ["head"]),
        ("A {term}`feature map` has features.", ["feature"]),
        ("The {term}`linear probe`. The probe.", []),
        ("We fine-\ntuned it: {term}`fine-tuning`.", ["fine-tuning"]),
        ("**Recall.** What is a\nlearning  rate?", ["learning rate"]),
        ("| {term}`head` | a backbone |\n\nThe head.", []),
        ("Two groups, at 95% confidence.", []),
        ("{term}`Frozen\n<freezing>` blocks.", ["block"]),
    ],
)
def test_first_uses_are_found(text, missing):
    assert [term for _, term, _ in unlinked(text)] == missing


def test_links_to_terms_lead_to_an_entry():
    """Sphinx says so too, when the book is built."""
    dead = [
        f"{page.name}: {term!r}"
        for page in [*PAGES, *(BOOK / f"{name}.md" for name in LISTS)]
        for _, term in links(page.read_text("utf-8"))
        if term not in glossary()
    ]
    assert not dead


def test_every_entry_is_used():
    used = {term for page in PAGES for _, term in links(page.read_text("utf-8"))}
    assert not sorted(set(glossary()) - used), "no page links to these entries"


def test_every_entry_has_its_chinese_term_beside_it():
    wrong = []
    for term, definition in glossary().items():
        beside = re.match(r'<span lang="zh-Hans">([^<]+)</span> ·\n(?=\S)', definition)
        if not beside or not any("CJK UNIFIED" in unicodedata.name(letter, "") for letter in beside[1]):
            wrong.append(term)
    assert not wrong
    chinese = [re.search(r">([^<]+)</span>", definition)[1] for definition in glossary().values()]
    assert len(chinese) == len({*chinese}), "two entries have the same Chinese term"


def test_the_book_brings_the_characters_of_its_chinese_terms():
    characters = set("".join(re.findall(r'<span lang="zh-Hans">([^<]+)</span>', read("glossary.md"))))
    drawn = TTFont(BOOK / "assets" / "lib" / "noto-sans-sc" / "glossary.woff").getBestCmap()
    missing = sorted(c for c in characters if c > "\u2e7f" and ord(c) not in drawn)
    assert not missing, f"run scripts/vendor_assets.py: the font lacks {missing}"


def test_entries_stand_in_order():
    names = [unicodedata.normalize("NFKD", term).encode("ascii", "ignore").decode().casefold() for term in glossary()]
    assert names == sorted(names)


# --- symbols ----------------------------------------------------------------------------------------------------------

GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu"),
    *("nu", "xi", "pi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "ell"),
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
}
IN_WORDS = re.compile(
    r"\\(?:text|operatorname\*?|mathrm|texttt|begin|end|mathcal)\{[^{}]*\}|^:label:.*$|\[[\d.]+ex\]", re.M
)


def formulas(text):
    """The formulas of a page, without those in code."""
    text = re.sub(r"^(`{3,})(?:\{code-cell\}|python|bash|text).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    fenced = re.compile(r"^(`{3,})\{math\}\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
    display = re.compile(r"\$\$(.*?)\$\$", re.DOTALL)
    found = [match[2] for match in fenced.finditer(text)] + display.findall(text)
    text = display.sub("", fenced.sub("", text))
    return found + re.findall(r"\$([^$]+)\$", re.sub(r"(?:\{[\w:.-]+\})?`[^`]*`", "", text))


def symbols(text):
    """The letters in the formulas of a text; functions with names and words are none."""
    found = set()
    for formula in formulas(text):
        formula = IN_WORDS.sub("", formula)
        found |= {f"\\{name}" for name in re.findall(r"\\([A-Za-z]+)", formula) if name in GREEK}
        found |= set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", formula)))
    return found


def first_column(text):
    return "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))


def notation():
    """The letters with one meaning everywhere, and, for each chapter, those that are guests there."""
    common, signs, guests = re.split(r"^## Signs$|^## Where a letter has a guest$", read("notation.md"), flags=re.M)
    alone = "\n".join(cell for cell in first_column(signs).splitlines() if re.fullmatch(r" \$\\?[A-Za-z]+\$ ", cell))
    entries = re.findall(r"^- In \{doc\}`\.\./notebooks/(\w+)`(.*?)(?=^- |\Z)", guests, re.DOTALL | re.MULTILINE)
    return symbols(first_column(common)) | symbols(alone), {name: symbols(text) for name, text in entries}


@each_chapter
def test_every_letter_of_a_formula_is_explained(chapter):
    common, guests = notation()
    used = symbols(chapter.read_text("utf-8"))
    assert not sorted(used - common - guests.get(chapter.stem, set())), "these letters are missing in book/notation.md"


def test_guests_are_at_home_in_their_chapters():
    _, guests = notation()
    texts = {chapter.stem: symbols(chapter.read_text("utf-8")) for chapter in CHAPTERS}
    assert {name: sorted(letters - texts[name]) for name, letters in guests.items() if letters - texts[name]} == {}


def test_symbols_are_found():
    text = "$\\hat y_i = \\operatorname{softmax}(W^\\top f)$ and\n\n$$\n\\ell \\quad \\text{if so}\n$$\n\n`$z$`"
    assert symbols(text) == {"y", "i", "W", "f", "\\ell"}
    assert symbols("```{math}\n:label: eq-abc\n\\lambda x\n```\n") == {"\\lambda", "x"}


# --- the API and its chapters -----------------------------------------------------------------------------------------

NOWHERE = "–"


def public(module):
    """Names of the functions and classes of a module that its page documents."""
    tree = ast.parse((ROOT / "tlutils" / f"{module}.py").read_text(encoding="utf-8"))
    own = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return {name for name in ast.literal_eval(node.value) if not name.isupper()}
    return {node.name for node in own if not node.name.startswith("_") and ast.get_docstring(node)}


def api_tables():
    """module → list of (names, where): the rows of the tables."""
    tables = {}
    for line in read("api.md").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| {py:obj}") else []
        if cells:
            functions = re.findall(r"\{py:obj\}`~tlutils\.(\w+)\.(\w+)`", cells[0])
            (module,) = {module for module, _ in functions}
            tables.setdefault(module, []).append(([name for _, name in functions], cells[1]))
    return tables


def test_every_public_module_is_documented():
    modules = set(tlutils.__all__) - {"__version__"}
    assert set(re.findall(r"^\.\. automodule:: tlutils\.(\w+)$", read("api.md"), re.M)) == modules
    assert set(api_tables()) == modules


@pytest.mark.parametrize("module", sorted(set(tlutils.__all__) - {"__version__"}))
def test_every_function_has_its_place_in_the_book(module):
    listed = [name for names, _ in api_tables()[module] for name in names]
    assert len(listed) == len(set(listed)), "a function stands in two rows"
    assert set(listed) == public(module)


def test_the_chapters_named_do_speak_of_the_functions():
    """Each row has a function that its chapters use, or an equation of theirs; a row without a chapter has none."""
    texts = {chapter.stem: chapter.read_text("utf-8") for chapter in CHAPTERS}
    wrong = []
    for module, rows in api_tables().items():
        for names, where in rows:
            chapters = re.findall(r"\.\./notebooks/(\w+)", where)
            labels = re.findall(r"\{eq\}`([\w-]+)`", where)
            found = {name for name in names if any(re.search(rf"\b{name}\b", texts[stem]) for stem in chapters)}
            if chapters and not found and not labels:
                wrong.append(f"{module}: {', '.join(chapters)} speak of none of {', '.join(names)}")
            wrong += [
                f"{module}: {label} is no equation of {', '.join(chapters)}"
                for label in labels
                if not any(re.search(rf":label: {label}$|\({label}\)$", texts[stem], re.MULTILINE) for stem in chapters)
            ]
            if where == NOWHERE:
                used = [(name, stem) for name in names for stem, text in texts.items() if f"{module}.{name}(" in text]
                wrong += [f"{module}.{name}: {stem} uses it" for name, stem in used]
    assert not wrong, "\n".join(wrong)


# --- places in chapters -----------------------------------------------------------------------------------------------


@cache
def headings(stem):
    """The headings of a page below its title, as they are written."""
    source = next(path for path in (*CHAPTERS, *BOOK.glob("*.md")) if path.stem == stem)
    text = re.sub(r"^(`{3,}).*?^\1$", "", source.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#{2,3} (.+)$", text, re.MULTILINE)


def slug(heading):
    """The name of a heading in an address."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ["api", "faq", "responsible_use", "teaching", "trends"])
def test_links_to_places_lead_there(page):
    """Sphinx says so too, but only when the book is built."""
    if not (BOOK / f"{page}.md").is_file():
        pytest.skip(f"there is no book/{page}.md")
    places = re.findall(r"\]\((?:\.\./notebooks/)?(\w+)\.(?:ipynb|md)#([\w-]+)\)", read(f"{page}.md"))
    assert places
    assert [f"{stem}#{name}" for stem, name in places if name not in map(slug, headings(stem))] == []


# --- the teaching guide -----------------------------------------------------------------------------------------------

TOPICS = [
    *("Background", "Core concepts", "Step 1", "Step 2", "Step 3", "The algorithm", "Its operations", "Loss functions"),
    *("Gradient descent", "Regularization", "The worked VGG16 code", "Trends and challenges"),
    *("why", "how to choose", "how to fine-tune", "how to evaluate", "how to optimise", "what for"),
]


def table(heading):
    """The rows of the first table below a heading of the teaching guide, each a list of cells."""
    text = read("teaching.md").split(f"\n## {heading}\n")[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_chapters_of_the_guide_need_what_they_say_they_need():
    rows = table("Chapter by chapter")
    assert [re.search(r"notebooks/(\w+)", row[0])[1] for row in rows] == [chapter.stem for chapter in CHAPTERS]
    for chapter, row in zip(CHAPTERS, rows):
        said = re.search(r"\*\*What to know first\.\*\*(.*?)\n\n", chapter.read_text("utf-8"), re.DOTALL)[1]
        needs = [str(int(number)) for number in re.findall(r"\{doc\}`(\d+)_", said)]
        assert row[1] == (", ".join(sorted(needs, key=int)) or NOWHERE), chapter.stem


def test_what_the_guide_leaves_out_can_be_left_out():
    """A section that a chapter says can be skipped may be left out, and each of these is named."""
    named = {
        (stem, name)
        for row in table("Chapter by chapter")
        for stem, name in re.findall(r"(\w+)\.ipynb#([\w-]+)", row[3])
    }
    skipped = set()
    for chapter in CHAPTERS:
        for section in re.split(r"^(?=#{2,3} )", chapter.read_text("utf-8"), flags=re.MULTILINE):
            if "*You can skip this section" in section:
                skipped.add((chapter.stem, slug(section.splitlines()[0].lstrip("# "))))
    assert named == skipped


def test_every_chapter_has_its_objectives_and_its_troubles():
    text = read("teaching.md")
    for chapter, row in zip(CHAPTERS, table("Chapter by chapter")):
        title = re.search(r"^# (.+)$", chapter.read_text("utf-8"), re.MULTILINE)[1]
        number = re.search(r"\{doc\}`(\w+)", row[0])[1]
        section = text.split(f"\n### {number} {title}\n" if number.isdigit() else f"\n### {title}\n")[1].split("\n#")[0]
        for part in ("**At the end they can**", "**Ask first.**", "**What goes wrong.**"):
            assert part in section, (title, part)


def test_course_plans_are_as_long_as_they_say():
    text = read("teaching.md")
    for plan, minutes in (("Two hours", 120), ("One day", 360)):
        rows = re.findall(r"^\| (\d+) \|", text.split(f"\n### {plan}\n")[1].split("\n### ")[0], re.MULTILINE)
        assert sum(map(int, rows)) == minutes, plan


def test_each_topic_of_the_article_has_its_place():
    rows = table("Where the topics of the article are")
    for topic in TOPICS:
        places = [where for name, where in rows if topic in name]
        assert places, topic
        assert all("](" in where or "{doc}" in where for where in places), topic


def test_no_page_sends_readers_to_a_chapter_that_does_not_exist():
    there = {re.match(r"\d+", chapter.stem)[0] for chapter in CHAPTERS if chapter.stem[0].isdigit()}
    missing = "|".join(str(number) for number in range(1, 17) if f"{number:02d}" not in there)
    pages = [BOOK / "teaching.md", BOOK / "responsible_use.md", *DECKS]
    promised = [
        f"{page.name}: {match[0]}"
        for page in pages
        for match in re.finditer(rf"[Cc]hapters? (?:\d+ (?:and|to) )?(?:{missing})\b", page.read_text("utf-8"))
    ]
    assert not promised


# --- the slides -------------------------------------------------------------------------------------------------------


def slides(deck):
    """Each slide of a deck as (what is shown, the speaker's note)."""
    text = deck.read_text(encoding="utf-8")
    assert text.startswith("---\nmarp: true\n"), f"{deck.name} does not begin with Marp's settings"
    for slide in text.split("\n---\n", 1)[1].split("\n---\n"):
        notes = re.findall(r"<!--(.*?)-->", slide, re.DOTALL)
        yield re.sub(r"<!--.*?-->", "", slide, flags=re.DOTALL).strip(), " ".join(" ".join(notes).split())


def test_there_is_a_deck_for_each_part():
    assert {deck.stem for deck in DECKS} == {"foundations", "mathematics", "evaluation", "photographs"}
    linked = re.findall(r"\{download\}`[^<`]+<slides/(\w+)\.md>`", read("teaching.md"))
    assert sorted(linked) == [deck.stem for deck in DECKS]


@each_deck
def test_every_slide_has_a_heading_and_a_note_and_little_on_it(deck):
    for shown, note in slides(deck):
        heading, *lines = shown.splitlines()
        assert re.match(r"##? \S", heading), f"{deck.stem}: a slide begins with {heading!r}"
        assert len(note.split()) >= 8, f"{deck.stem}, {heading}: nothing is said to the speaker"
        assert len([line for line in lines if line.strip()]) <= 11, f"{deck.stem}, {heading}: too many lines"
        assert max(map(len, lines), default=0) <= 100, f"{deck.stem}, {heading}: a line is too long"


@each_deck
def test_a_slide_quotes_no_measured_number(deck):
    for shown, _ in slides(deck):
        words = re.sub(r"```.*?```|`[^`]*`|\$[^$]+\$", "", shown, flags=re.DOTALL)
        assert not re.findall(r"\d[.,]\d|\d ?(?:seconds|s\b|GB)", words), shown.splitlines()[0]


@each_deck
def test_notes_name_sections_that_exist(deck):
    known = {re.match(r"\d+|\w+", chapter.stem)[0].lstrip("0"): headings(chapter.stem) for chapter in CHAPTERS}
    opened = 0
    for shown, note in slides(deck):
        chapter = None
        for number, traps, section in re.findall(r"chapter (\d+)|the (traps)|\*([^*]+)\*", note):
            chapter = number or traps or chapter
            if section and chapter and section[0].isupper():
                opened += 1
                assert section in known[chapter], (
                    f"{deck.stem}, {shown.splitlines()[0]}: chapter {chapter} has no {section!r}"
                )
    assert opened >= 5


# --- responsible use --------------------------------------------------------------------------------------------------


def rows_of(text, heading):
    return [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in re.search(r"(?:^\|.*\n)+", text.split(heading)[1], re.MULTILINE)[0].splitlines()[2:]
    ]


def test_licences_of_weights_are_those_of_the_package():
    rows = rows_of(read("responsible_use.md"), "\n## Whose weights are they?\n")
    said = {name: licence for names, licence in rows for name in re.findall(r"`([^`]+)`", names)}
    assert said == {entry["name"]: entry["licence"] for entry in backbones.describe()}


def test_licences_of_data_are_those_of_the_registry():
    rows = rows_of(read("responsible_use.md"), "\n## Whose photographs are they?\n")
    said = {name: (licence, people) for names, licence, people in rows for name in re.findall(r"`([^`]+)`", names)}
    known = data.registry()
    assert set(said) == set(known)
    for name, (licence, people) in said.items():
        assert re.split(r"[;,]", known[name].licence)[0] == licence
        assert people.startswith("none") == (known[name].people == "none")


@pytest.fixture
def code(tmp_path, monkeypatch):
    """What the Python of the page on responsible use leaves behind, and what it prints."""
    monkeypatch.chdir(tmp_path)
    photo = Image.fromarray(np.zeros((20, 40, 3), "uint8"))
    exif = photo.getexif()
    exif[0x0112] = 6  # taken upright: the picture has to be turned
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})  # where
    exif[0x0132] = "2026:11:26 12:00:00"  # and when
    photo.save("photo.jpg", exif=exif)

    draw = np.random.default_rng(0)
    images = draw.integers(100, 250, (60, 8, 8, 1)).astype("uint8")
    images[:30] //= 4
    labels = np.arange(60) % 2
    task = data.from_arrays(
        "leaves", (images[:20] + 1, labels[:20]), test=(images, labels), class_names=("well", "ill")
    )
    network = SimpleNamespace(**dict.fromkeys(("name", "family", "source_task"), "x"), licence="MIT, x", parameters=1)
    monkeypatch.setattr(backbones, "load", lambda name: network)
    names = {"task": task, "report": evaluation.report(draw.normal(size=(60, 2)), labels, split="test")}
    blocks = re.findall(r"^```python\n(.*?)^```$", read("responsible_use.md"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "responsible_use.md", "exec"), names)
    return names


def test_the_copy_to_share_says_neither_where_nor_when(code):
    with Image.open("photo.jpg") as photo, Image.open("photo_to_share.jpg") as copy:
        assert photo.getexif().get_ifd(0x8825), "the photograph of this test has no place"
        assert not copy.getexif()
        assert copy.size == (20, 40), "the copy is not upright"
    assert "exif" not in copy.info


def test_the_other_code_of_the_page_does_what_it_says(code, capsys):
    assert code["source"].licence.startswith("CC BY 2.0")
    assert set(code["dark"]) == {True, False}
    assert len(code["part"]) == 30
    assert "MIT, x" in code["card"]
    assert "Not for deciding about treatment." in code["card"]
