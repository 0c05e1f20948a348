"""Tables of text cells, for a terminal, a notebook and a Markdown file."""

from html import escape


def ends_text(interval, digits, between=" to "):
    """An interval ``(low, high)`` in words, or a dash for ``None``."""
    return "–" if interval is None else f"{interval[0]:{digits}}{between}{interval[1]:{digits}}"


def as_text(heading, rows, note, left=(0,)):
    """Columns for a terminal; those numbered in ``left`` start on the left, the others end on the right."""
    cells = [heading, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heading))]
    lines = [
        "  ".join(f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in cells
    ]
    return "\n".join([*lines, note] if note else lines)


def as_html(heading, rows, note):
    """A table for a notebook; the book's stylesheet knows its class."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="tl-numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return table + (f"<p>{escape(note)}</p>" if note else "")


def as_markdown(heading, rows, note):
    """A table for a Markdown file."""
    lines = [heading, ("---",) * len(heading), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    return f"{table}\n\n({note})" if note else table
