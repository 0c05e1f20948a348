"""Turn the book's Markdown into what every notebook program shows: roles, cross-references and boxes become plain text.

The book's own notebooks keep the roles of MyST, which Sphinx resolves. The notebooks of a course are read in Jupyter or
Colab only, where ``{term}`head``` would stand in the text as it is.
"""

import re
import textwrap
from typing import NamedTuple

_ROLE = re.compile(r"\{([a-z]+(?::[a-z]+)?)\}`([^`]+)`")
_FENCE = re.compile(r"(`{3,}|:{3,})\{([\w-]+)\} *(.*)")
_BADGE = re.compile(r"\[!\[Open in Colab\].*\n*")
_TARGET = re.compile(r"^\([\w-]+\)=\n*", re.MULTILINE)


class Converter:
    """Converts the Markdown of one notebook.

    Args:
        texts (list): All Markdown of the notebook, in which its equations are numbered.
        glued (dict): What ``{glue}`` shows, by name: numbers, strings, or the HTML of a table.
        titles (dict): Title of each chapter, by the name of its notebook.
        references (dict): (authors, year) of each publication, by its key.

    Raises:
        KeyError: From a call, for a name that is none of ``glued`` or ``references``.
    """

    def __init__(self, texts, glued, titles, references):
        labels = re.findall(r"\{math\}.*\n:label: *(\S+)", "\n".join(texts))
        self.equations = {label: number for number, label in enumerate(labels, 1)}
        self.glued, self.titles, self.references = glued, titles, references

    def __call__(self, text):
        """Convert one piece of Markdown; a directive that is not known stays as it is."""
        text = _TARGET.sub("", _BADGE.sub("", text))
        lines = []
        for block in blocks(text):
            lines.append(getattr(self, f"_{block.name}", self._text)(block))
        return "\n".join(lines).strip()

    def _text(self, block):
        return _ROLE.sub(self._role, block.source)

    def _code(self, block):
        return block.source

    def _admonition(self, block):
        text = f"**{_ROLE.sub(self._role, block.argument)}**\n\n{self(block.body)}"
        return textwrap.indent(text, "> ", lambda line: True)

    def _quiz(self, block):
        return self(block.body)

    def _math(self, block):
        number = self.equations.get(block.options.get("label"))
        return "$$\n" + block.body + (f"\n\\tag{{{number}}}" if number else "") + "\n$$"

    def _glue(self, block):
        return str(self.glued[block.argument])

    def _role(self, match):
        role, content = match[1], " ".join(match[2].split())
        text, target = re.fullmatch(r"(?s)(.*?)\s*(?:<([^<>]*)>)?", content).groups()
        target = target or text
        if role == "glue:text":
            name, _, form = content.partition(":")
            return format(self.glued[name], form)
        if role == "doc":
            name = target.rpartition("/")[2]
            title = self.titles.get(name, name) if text == target else text
            return f"[{title}]({name}.ipynb)" if name in self.titles else title
        if role == "eq":
            return f"({self.equations[content]})" if content in self.equations else "the equation"
        if role.startswith("cite"):
            cited = [self.references[key.strip()] for key in content.split(",")]
            if role == "cite:t":
                return ", ".join(f"{authors} ({year})" for authors, year in cited)
            return f"({'; '.join(f'{authors}, {year}' for authors, year in cited)})"
        return text if role in ("term", "ref") else match[0]


class Block(NamedTuple):
    """A directive, text between directives (``name`` is ``"text"``), or code in it (``"code"``)."""

    name: str
    argument: str
    options: dict
    body: str  # of a directive, without its options
    source: str


def blocks(text):
    """Split Markdown into the directives at its outermost level and what stands between them: a list of blocks."""
    found, plain, lines = [], [], iter(text.splitlines())

    def add(name, source, argument="", options=None, body=""):
        found.append(Block(name, argument, options or {}, body, "\n".join(source)))

    for line in lines:
        opening = _FENCE.fullmatch(line)
        code = re.match(r"`{3,}", line)
        if not opening and not code:
            plain.append(line)
            continue
        if plain:
            add("text", plain)
            plain = []
        if not opening:
            add("code", [line, *_until(lines, code[0])])
            continue
        inside = _until(lines, opening[1])
        body, options = inside[:-1], {}
        while body and (option := re.fullmatch(r":(\w+): *(.*)", body[0])):
            options[option[1]] = option[2]
            body = body[1:]
        add(opening[2], [line, *inside], opening[3].strip(), options, "\n".join(body).strip())
    if plain:
        add("text", plain)
    return found


def _until(lines, fence):
    """The lines up to and with the one that closes a fence; without one, a closing line is added."""
    inside = []
    for line in lines:
        inside.append(line)
        if line.rstrip() == fence:
            return inside
    return [*inside, fence]


def references(path):
    """Read who wrote what and when from a BibTeX file: key to (authors as they are cited, year)."""
    from pybtex.database import parse_file

    return {key: (_authors(entry), entry.fields["year"]) for key, entry in parse_file(str(path)).entries.items()}


def _authors(entry):
    people = [" ".join(map(str, [*one.rich_prelast_names, *one.rich_last_names])) for one in entry.persons["author"]]
    if len(people) > 2 or people[-1] == "others":
        return f"{people[0]} et al."
    return " and ".join(people)
