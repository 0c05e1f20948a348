"""Every page of the book in Chromium: what moves moves, by mouse and by keyboard, and nothing keeps a reader out."""

import functools
import http.server
import threading

import build_book
import pytest

OPENED = ["index", *build_book.pages()]

# Unfolds whatever a page has folded away, so that it is measured too.
UNFOLD = """() => {
    document.querySelectorAll("article details").forEach(box => { box.open = true; });
    document.querySelectorAll(".toggle-button-hidden").forEach(button => button.click());
}"""


@pytest.fixture(scope="module", params=OPENED)
def page(request, opened, site):
    """The tab in which one page is open, wide and light; all tests of the page use it in turn."""
    tab, troubles = opened((site / f"{request.param}.html").as_uri(), color_scheme="light")
    tab.troubles = troubles
    yield tab
    tab.context.close()


def skip_without(found, what):
    if not found:
        pytest.skip(f"no {what} on this page")
    return found


def test_it_opens_clean(page):
    page.wait_for_load_state("load")
    assert page.troubles == []


def test_figures_move(page):
    for figure in skip_without(page.locator(".tl-live").all(), "figure that moves"):
        slider = figure.locator("input")
        count = figure.locator("img").count()

        def shown(figure=figure, slider=slider):
            visible = figure.evaluate(
                """f => [...f.querySelectorAll("img")].map((p, i) => [p, i])
                .filter(([p]) => p.offsetParent && p.naturalWidth).map(([p, i]) => [i, p.alt, p.dataset.label])"""
            )
            assert len(visible) == 1, "not exactly one picture is to be seen"
            number, alt, label = visible[0]
            assert alt and number == int(slider.input_value())
            assert figure.locator("output").inner_text() == slider.get_attribute("aria-valuetext") == label
            return number

        assert figure.evaluate("f => f.querySelector('label').control === f.querySelector('input')")
        slider.press("Home")
        assert shown() == 0
        slider.press("ArrowRight")
        assert shown() == 1
        slider.press("End")
        assert shown() == count - 1
        box = slider.bounding_box()
        slider.click(position={"x": 2, "y": box["height"] / 2})
        assert shown() == 0
        play = figure.locator("button")
        if play.count():
            play.click()
            page.wait_for_function("s => Number(s.value) >= 1", arg=slider.element_handle())
            assert play.inner_text() == "Stop"
            play.press("Enter")
            at = shown()
            page.wait_for_timeout(800)
            assert shown() == at and play.inner_text() == "Play"
    assert page.troubles == []


def test_quizzes_reply(page):
    for quiz in skip_without(page.locator(".tl-quiz").all(), "quiz"):
        said = quiz.locator("[role=status]")
        answers, replies = quiz.locator("label").all(), quiz.locator("details li").all()
        kinds = [reply.get_attribute("class") for reply in replies]
        texts = [reply.evaluate("r => r.textContent.trim()") for reply in replies]
        assert said.inner_text() == "" and not quiz.locator("details").is_visible()

        def is_said(number, said=said, kinds=kinds, texts=texts):
            return said.evaluate("s => [s.dataset.answer, s.textContent.trim()]") == [kinds[number], texts[number]]

        for number, answer in enumerate(answers):  # by mouse
            answer.click()
            assert is_said(number) and said.is_visible()
        first, second = (answer.locator("input") for answer in answers[:2])
        first.click()
        page.keyboard.press("ArrowDown")  # by keyboard: an arrow chooses and tells nothing
        assert second.is_checked() and said.inner_text() == ""
        page.keyboard.press("Enter")
        assert is_said(1)
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Space")
        assert is_said(0)
    assert page.troubles == []


def test_what_is_folded_unfolds(page):
    boxes = [box for box in page.locator("article details").all() if box.is_visible()]
    solutions = page.locator("article .admonition.dropdown").all()
    skip_without(boxes + solutions, "dropdown")
    for box in boxes:
        summary = box.locator("> summary")
        state = box.evaluate("b => b.open")
        summary.click(position={"x": 5, "y": 5})
        assert box.evaluate("b => b.open") != state, "the mouse does nothing"
        summary.press("Enter")
        assert box.evaluate("b => b.open") == state, "the keyboard does nothing"
    for solution in solutions:
        content, button = solution.locator("> :not(.admonition-title)").first, solution.locator(".toggle-button").first
        assert not content.is_visible()
        solution.locator("> .admonition-title").click()
        assert content.is_visible(), "the mouse does nothing"
        button.press("Enter")
        assert not content.is_visible(), "the keyboard does nothing"
    assert page.troubles == []


def test_menus_of_the_page_open(page):
    for button in page.locator(".bd-header-article .dropdown-toggle").all():
        menu = button.locator("xpath=following-sibling::ul")
        button.click()
        assert menu.is_visible(), "the mouse does nothing"
        page.mouse.move(0, 0)  # a menu stays open while the mouse is on it
        page.keyboard.press("Escape")
        assert not menu.is_visible()
        button.press("Enter")
        assert menu.is_visible(), "the keyboard does nothing"
        page.keyboard.press("Escape")
    assert page.troubles == []


def test_copy_buttons_copy(page):
    page.evaluate(UNFOLD)
    buttons = skip_without(page.query_selector_all("button.copybtn"), "code to copy")
    page.evaluate("document.addEventListener('copy', event => { window.copied = event.target.value; })")
    buttons[0].focus()
    for key in ("Shift+Tab", "Tab"):  # a button that has the focus of the keyboard is to be seen
        page.keyboard.press(key)
    page.wait_for_function("b => document.activeElement === b && getComputedStyle(b).opacity > 0.9", arg=buttons[0])
    for button in buttons:
        code = button.evaluate("b => document.querySelector(b.dataset.clipboardTarget).textContent.trim()")
        button.focus()
        page.keyboard.press("Enter")
        by_keyboard = page.evaluate("() => { const said = window.copied; window.copied = null; return said; }")
        x, y = button.evaluate(
            """b => {
                b.scrollIntoView({block: "center", behavior: "instant"});
                const box = b.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }"""
        )
        page.mouse.click(x, y)
        by_mouse = page.evaluate("() => { const said = window.copied; window.copied = null; return said; }")
        assert by_keyboard and by_keyboard == by_mouse and by_keyboard.strip() in code
    assert page.troubles == []


def test_formulas_are_set(page):
    skip_without(page.locator("article .math").count(), "formula")
    page.wait_for_function("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    page.evaluate("() => MathJax.startup.promise")
    unset = page.evaluate(
        """() => [...document.querySelectorAll("article .math")].filter(e => {
            const set = e.querySelector("mjx-container");
            return !set || set.querySelector("mjx-merror") || (e.offsetParent && !set.getBoundingClientRect().width);
        }).map(e => e.textContent.slice(0, 80))"""
    )
    assert unset == []
    assert page.troubles == []


def test_code_does_not_scroll_sideways(page):
    page.evaluate(UNFOLD)
    wide = page.evaluate(
        """() => [...document.querySelectorAll("article .highlight pre")].filter(e => !e.closest(".cell_output"))
        .filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 80))"""
    )
    assert wide == []


# Of the words of code that look alike, because their classes are the same, axe-core needs to see one.
ALIKE = """() => {
    const seen = new Set();
    for (const word of document.querySelectorAll(".highlight pre span")) {
        const places = ["div.cell_input", "div.cell_output", "div.admonition"].map(place => !!word.closest(place));
        const look = [word.className, ...places].join();
        word.toggleAttribute("data-alike", seen.has(look));
        seen.add(look);
    }
}"""


def violations(page, **options):
    """What axe-core finds that is serious or critical, one line each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.evaluate(ALIKE)
    options |= {"resultTypes": ["violations"], "preload": False}
    found = axe.Axe().run(page, {"exclude": [["[data-alike]"]]}, options).response["violations"]
    return [
        f"{rule['id']} at {node['target']}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:5]
    ]


def test_nothing_keeps_a_reader_out(page):
    page.evaluate(UNFOLD)
    assert violations(page) == []


def test_contrast_holds_in_the_dark(page):
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    page.wait_for_timeout(400)  # colours fade over
    assert violations(page, runOnly=["color-contrast"]) == []
    page.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")


def test_a_phone_does_not_scroll_sideways(page):
    page.evaluate(UNFOLD)
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(200)
    too_wide = page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .slice(0, 5).map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`)"""
    )
    assert too_wide == [] and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.troubles == []


# --- what needs a page of its own -------------------------------------------------------------------------------------


def test_a_page_without_scripts(opened, site):
    tab, _ = opened((site / "index.html").as_uri(), java_script_enabled=False)
    assert tab.locator(".tl-live img:visible").count() == 1
    assert not tab.locator(".tl-live input").is_visible()
    chapter, _ = opened((site / "notebooks" / "01_first_transfer.html").as_uri(), java_script_enabled=False)
    quiz = chapter.locator(".tl-quiz").first
    assert not quiz.locator("li").first.is_visible()
    quiz.locator("summary").click()
    assert quiz.locator("li").first.is_visible()


def test_dark_is_followed(opened, site):
    tab, troubles = opened((site / "index.html").as_uri(), color_scheme="dark")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert troubles == []


@pytest.fixture(scope="module")
def served(site):
    """The address of the book on a server of this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_search_finds_a_chapter(opened, served):
    tab, troubles = opened(f"{served}/index.html")
    tab.locator(".search-button__button:visible").first.click()
    field = tab.locator("input[type=search]:visible")
    field.fill("momentum")
    field.press("Enter")
    tab.wait_for_url("**/search.html?q=momentum*")
    found = tab.locator("#search-results li a")
    found.first.wait_for()
    assert any("08_gradient_descent.html" in link.get_attribute("href") for link in found.all())
    tab.wait_for_load_state("networkidle")
    assert troubles == []


def test_search_works_without_a_server(opened, site):
    """From a USB stick: the list is there; the summaries under it need a server."""
    tab, _ = opened(f"{(site / 'search.html').as_uri()}?q=momentum")
    tab.locator("#search-results li a").first.wait_for()
