"""The ``quiz`` directive: a question, numbered answers, and what to say to whoever chooses one of them.

::

    :::{quiz}
    What does the interval of a single run cover?

    1. Other labelled images.
    2. Other test images.

    <details><summary>Answers</summary>

    1. No. The labels stayed the same.
    2. Right. It asks what other test images of the same kind would give.

    </details>
    :::

The two lists have the same length, and the one reply that begins with ``Right`` marks the right answer. Where nobody
knows the directive (Colab, GitHub) this is ordinary Markdown with the answers folded away. In a page the answers become
radio buttons; ``live.js`` gives the reply. Without JavaScript, and on paper, the folded list remains.
"""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

FORM = "a quiz is one paragraph, a numbered list of answers and a numbered list of replies between <details> tags"


class quiz_element(nodes.General, nodes.Element):
    """An HTML element; other builders leave it out and show what is in it."""


def make(tag, *children, **attributes):
    """Return an HTML element with children."""
    return quiz_element("", *children, tag=tag, attributes=attributes)


class Quiz(SphinxDirective):
    """See the text of this module."""

    has_content = True

    def run(self):
        """Return one fieldset.

        Raises:
            DirectiveError: The content has another form, or not exactly one reply begins with ``Right``.
        """
        content = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, content)
        parts = [part for part in content if not isinstance(part, nodes.raw)]  # the <details> tags
        kinds = [type(part) for part in parts]
        if kinds != [nodes.paragraph, nodes.enumerated_list, nodes.enumerated_list]:
            found = ", ".join(kind.__name__.replace("_", " ") for kind in kinds) or "nothing"
            raise self.error(f"{FORM}; found {found}")
        question, answers, replies = parts
        if len(answers) != len(replies) or len(answers) < 2:
            raise self.error(
                f"{len(answers)} answers and {len(replies)} replies; give each answer one, and two at least"
            )
        right = [reply.astext().startswith("Right") for reply in replies]
        if sum(right) != 1:
            raise self.error(
                f"{sum(right)} replies begin with “Right”; begin the one to the right answer so, and no other"
            )
        name = f"quiz-{self.env.new_serialno('quiz') + 1}"
        choices = [
            make(
                "label",
                make("input", type="radio", name=name, value=str(number)),
                make("span", nodes.Text(f"{number + 1}. "), *inline(answer)),
            )
            for number, answer in enumerate(answers)
        ]
        items = [
            make("li", *reply.children, classes=["right" if good else "wrong"]) for reply, good in zip(replies, right)
        ]
        details = make("details", make("summary", nodes.Text("Answers")), make("ol", *items))
        return [make("fieldset", make("legend", *inline(question)), *choices, details, classes=["tl-quiz"], ids=[name])]


def inline(node):
    """The text of a paragraph, or of an item whose paragraph is all there is, with its markup."""
    return node.children if isinstance(node, nodes.paragraph) else [n for part in node for n in part.children]


def visit(translator, node):
    """Open an HTML element."""
    translator.body.append(translator.starttag(node, node["tag"], "", **node["attributes"]))


def depart(translator, node):
    """Close it; an ``input`` has no end."""
    if node["tag"] != "input":
        translator.body.append(f"</{node['tag']}>\n")


def ignore(translator, node):
    """What builders other than HTML do."""


def setup(app):
    """Register the directive."""
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (ignore, ignore))
    app.add_node(quiz_element, html=(visit, depart), **others)
    app.add_directive("quiz", Quiz)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
