"""Model cards become elements, and nothing in them can become markup."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from app.inference.model_store import ModelFolder, list_models
from tests.web.views.worlds import EXAMPLE

RENDER = """async ([name, text]) => {
  const { rendered } = await import(name);
  const box = document.createElement("div");
  box.append(...rendered(text));
  document.getElementById("view").replaceChildren(box);
  return box.innerHTML;
}"""
HARMLESS = {
    "div", "h2", "h3", "h4", "h5", "h6", "p", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "pre",
    "code", "strong", "em", "a",
}  # fmt: skip
TABLE = (
    '<div class="sheet-wide" tabindex="0"><table><thead><tr><th scope="col">a</th><th scope="col">b</th></tr></thead>'
    "<tbody><tr><td>1</td><td><code>2</code></td></tr></tbody></table></div><p>after</p>"
)
STORE = EXAMPLE.parents[3] / "model_store"


@pytest.fixture(scope="module")
def tab(browser: Browser, shell: str) -> Iterator[Page]:
    """One for all: each text replaces the one before."""
    context = browser.new_context()
    page = context.new_page()
    page.route("**/v1/**", lambda route: route.fulfill(status=404, json={"detail": "none"}))
    page.goto(f"{shell}/workspace/")
    page.wait_for_load_state("networkidle")
    yield page
    context.close()


def html(tab: Page, shell: str, text: str) -> str:
    return tab.evaluate(RENDER, [f"{shell}/workspace/static/markdown.js", text])


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("# Title #", "<h2>Title</h2>"),
        ("one\ntwo\n\nthree", "<p>one two</p><p>three</p>"),
        ("- a\n- b\n  more", "<ul><li>a</li><li>b more</li></ul>"),
        ("1. a\n2. b", "<ol><li>a</li><li>b</li></ol>"),
        ("a `x < y` b", "<p>a <code>x &lt; y</code> b</p>"),
        ("**bold** and *slanted*", "<p><strong>bold</strong> and <em>slanted</em></p>"),
        ("2 * 3 * 4", "<p>2 * 3 * 4</p>"),
        ("[here](#/dashboard)", '<p><a href="#/dashboard">here</a></p>'),
        ("```\n<b>\n# no\n```", '<pre tabindex="0"><code>&lt;b&gt;\n# no</code></pre>'),
        (
            "| a | b |\n|---|---|\n| 1 | `2` |\nafter",
            TABLE,
        ),
    ],
)
def test_what_cards_use_becomes_elements(tab: Page, shell: str, text: str, made: str):
    assert html(tab, shell, text) == made


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.broken = 1</script>",
        "<img src=x onerror='window.broken = 1'>",
        "[x](javascript:window.broken=1)",
        "[x](https://elsewhere.example/)",
        "![x](https://elsewhere.example/pixel.png)",
        '[x](#/" onmouseover="window.broken=1)',
        "| <svg onload=window.broken=1> |\n|---|\n| </td><script>window.broken=1</script> |",
    ],
)
def test_what_could_be_markup_stays_text(tab: Page, shell: str, text: str):
    html(tab, shell, text)
    found = tab.evaluate(
        """() => [...document.querySelectorAll("#view *")].map((element) => [
             element.localName, element.getAttribute("href"),
             element.getAttributeNames().filter((name) => name.startsWith("on")).length])"""
    )
    assert {name for name, _, _ in found} <= HARMLESS
    assert all(href is None or href.startswith("#/") for _, href, _ in found)
    assert sum(count for _, _, count in found) == 0
    assert tab.evaluate("() => window.broken") is None


def test_noise_is_rendered_in_time_and_stays_harmless(tab: Page, shell: str):
    rng = random.Random(3)
    pieces = [
        "<b>",
        "`",
        "**",
        "*",
        "[",
        "](",
        ")",
        "#",
        "|",
        "---",
        "\n",
        "\n\n",
        "- ",
        "1. ",
        "```",
        "a",
        " ",
        "&lt;",
        "_",
        "![",
    ]
    for _ in range(60):
        html(tab, shell, "".join(rng.choice(pieces) for _ in range(400)))
        names = tab.evaluate("() => [...document.querySelectorAll('#view *')].map((element) => element.localName)")
        assert set(names) <= HARMLESS


@pytest.mark.parametrize("model", list_models(STORE), ids=lambda model: f"{model.name}-{model.version}")
def test_our_own_cards_lose_no_word(tab: Page, shell: str, model: ModelFolder):
    text = (model.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    html(tab, shell, text)
    shown = tab.locator("#view").inner_text()
    figures = [word for word in text.replace("|", " ").split() if word.replace(".", "").isdigit()]
    assert figures
    assert [word for word in figures if word not in shown] == []
    assert tab.locator("#view table").count() == text.count("| --- |\n") + text.count("|---|\n")
