"""The explorer page in a real browser: it shows the search, answers to hands and keys, and trusts no text."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.export.searches import HOSTILE, Grow, run
from tts_search import BestOfN, SearchResult, Until
from tts_search.export import save, to_html
from tts_search.export.page import _between
from tts_search.export.rows import chosen_path
from tts_search.testing import FakeGenerator


class Page:
    """One page in the browser."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        browser.get(path.as_uri())

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def js(self, script: str) -> Any:
        return self.browser.execute_script(f"return {script}")

    def texts(self, selector: str) -> list[str]:
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")

    def press(self, *keys: str) -> None:
        names = {
            "Down": "\ue015",
            "Up": "\ue013",
            "Left": "\ue012",
            "Right": "\ue014",
            "Home": "\ue011",
            "End": "\ue010",
        }
        for key in keys:
            self.browser.switch_to.active_element.send_keys(names.get(key, key))

    def wait(self, reached: Callable[[], bool]) -> None:
        """What waits for the next frame or for typing to pause."""
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline, "the page did not get there within a minute"
            time.sleep(0.02)

    @property
    def title(self) -> str:
        return self.js("document.querySelector('#detail h2').innerText")  # in one go: the panel is redrawn meanwhile

    @property
    def shown(self) -> list[int]:
        """Indices of the rows that are not folded away."""
        return self.js("visible.map((node) => node.index)")


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[[SearchResult], Page]]:
    """Opens results; afterwards the console must be silent, and nothing but files requested."""
    for log in ("browser", "performance"):
        browser.get_log(log)

    def open_one(result: SearchResult) -> Page:
        return Page(browser, save(result, tmp_path / "search.html"))

    yield open_one
    assert browser.get_log("browser") == []
    assert requests(browser) == []


def requests(browser: Any) -> list[str]:
    """What the page asked for beyond itself; the browser's own start page asks for much."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls = [request["request"]["url"] for request in sent if request["documentURL"].startswith("file:")]
    assert urls, "the record of requests is empty: the test itself is broken"
    return [url for url in urls if not url.startswith(("file:", "data:,"))]


Opener = Callable[[SearchResult], Page]


def test_the_first_view(open_page: Opener, result: SearchResult) -> None:
    page = open_page(result)
    assert page.one("#question").text == "How many apples?"
    assert page.title == "Question and answer"
    assert result.answer in page.one("#detail").text
    assert f"{result.usage.sampled_tokens:,}" in page.one("#detail").text
    assert page.shown[0] == 0
    assert set(chosen_path(result)) <= set(page.shown)
    assert len(page.all(".row.chosen")) >= 2


def test_selecting_a_node_shows_its_text_and_its_steps(open_page: Opener) -> None:
    result = run(BestOfN(n=4), FakeGenerator(step=0.2), seed=5)
    assert result.tree is not None
    page = open_page(result)
    for index in (1, 3):
        node = result.tree.nodes[index]
        page.one(f"#row-{index} .words").click()
        page.wait(lambda index=index: page.title.startswith(f"Node {index}\n"))
        pieces = page.texts("#detail .piece .prose")
        steps = result.tree.trajectory(node).steps
        assert [piece.strip() for piece in pieces[: len(steps)]] == [step.strip() or "↵" for step in steps]
        scores = page.texts("#detail .piece .chip")
        assert scores == [f"{score:.2f}" for score in node.step_scores]
        assert (f"{node.value:.3f}" if steps else "–") in page.title


def test_empty_lines_around_a_step_are_not_shown(open_page: Opener, result: SearchResult) -> None:
    page = open_page(result)
    page.browser.set_script_timeout(20)
    assert page.js("piece('\\n\\na' + '\\n'.repeat(400_000) + 'b\\n', 'open', null, null).innerText.length") > 400_000
    assert page.js("['\\n\\na\\nb\\n', '\\n', ''].map(withoutEmptyLines)") == ["a\nb", "", ""]


def test_folding_by_hand(open_page: Opener, result: SearchResult) -> None:
    tree = result.tree
    assert tree is not None
    page = open_page(result)
    page.one("#unfold").click()
    assert sorted(page.shown) == list(range(len(tree)))
    page.one("#fold").click()
    top = [child.index for child in tree.children(tree.root)]
    assert page.shown == [0, *top]
    inner = next(index for index in top if tree.children(tree.nodes[index]))
    page.one(f"#row-{inner} .twist").click()
    assert len(page.shown) == 1 + len(top) + len(tree.children(tree.nodes[inner]))
    assert page.one(f"#row-{inner}").get_attribute("aria-expanded") == "true"
    page.one(f"#row-{inner} .twist").click()
    assert page.shown == [0, *top]


def test_walking_by_keys(open_page: Opener, result: SearchResult) -> None:
    page = open_page(result)
    selected = lambda: page.js("selected.index")  # noqa: E731
    page.press("Down", "Down")
    assert selected() == page.shown[2]
    page.press("Home")
    assert selected() == 0
    page.press("Left")
    assert page.shown == [0]
    page.press("Right", "Right")
    assert selected() == 1
    page.press("End")
    assert selected() == page.shown[-1]
    page.press("c")
    end = chosen_path(result)[-1]
    assert selected() == end
    page.press("Left")
    assert selected() == chosen_path(result)[-2]
    assert page.one("#tree").get_attribute("aria-activedescendant") == f"row-{chosen_path(result)[-2]}"


def test_folding_away_the_selection_moves_it_up(open_page: Opener, result: SearchResult) -> None:
    page = open_page(result)
    page.press("c")
    page.one("#fold").click()
    assert page.js("selected.index") == chosen_path(result)[1]


def test_searching_in_texts(open_page: Opener, result: SearchResult) -> None:
    tree = result.tree
    assert tree is not None
    page = open_page(result)
    texts = [tree.decode(node.token_ids) for node in tree]
    word = texts[5][:3]
    hits = [i for i, text in enumerate(texts) if word in text]
    page.press("/")
    page.press(*word.upper())
    page.wait(lambda: page.one("#hits").text == f"1 of {len(hits)}")
    assert page.js("selected.index") == hits[0]
    page.wait(lambda: word in page.texts("#detail mark"))
    page.press("\ue007")
    page.wait(lambda: page.js("selected.index") == hits[1 % len(hits)])
    page.press("qq")
    page.wait(lambda: page.one("#hits").text == "no match")


def test_whole_paths_join_steps_across_nodes(open_page: Opener) -> None:
    result = run(Grow(rounds=8, until=Until.THOUGHT, max_tokens=11), FakeGenerator(close=0.0))
    tree = result.tree
    assert tree is not None
    end = tree.nodes[max(node.index for node in tree if node.depth == max(n.depth for n in tree))]
    page = open_page(result)
    page.js(f"select(nodes[{end.index}])")
    page.wait(lambda: page.title.startswith(f"Node {end.index}"))
    page.js("document.querySelectorAll('#detail .switch button')[1].click()")
    pieces = [piece.strip() for piece in page.texts("#detail .piece.step .prose")]
    assert pieces == [step.strip() or "↵" for step in tree.trajectory(end).steps]


def test_best_first(open_page: Opener) -> None:
    result = run(BestOfN(n=6), FakeGenerator(step=0.3))
    assert result.tree is not None
    page = open_page(result)
    page.one("#best-first").click()
    top = [i for i in page.shown if result.tree.nodes[i].depth == 1]
    values = [result.tree.nodes[i].value for i in top]
    assert values == sorted(values, reverse=True)


def test_a_click_on_the_map_selects(open_page: Opener, result: SearchResult) -> None:
    page = open_page(result)
    x, y = page.js("[mapX(nodes[1].length) - 3, mapY(nodes[1])]")
    page.js(
        f"canvas.dispatchEvent(Object.assign(new MouseEvent('click', {{bubbles: true, clientX: {x}, "
        f"clientY: {y} + document.getElementById('map').getBoundingClientRect().top}})))"
    )
    assert page.js("selected.index") == 1


def test_hostile_text_stays_text(open_page: Opener, hostile: SearchResult) -> None:
    page = open_page(hostile)
    page.one("#unfold").click()
    for index in page.shown:
        page.js(f"select(nodes[{index}])")
        page.wait(lambda index=index: page.title.startswith(f"Node {index}\n") or index == 0)
    page.js("document.getElementById('tree').focus()")
    page.press("Home")
    page.wait(lambda: page.title == "Question and answer")
    assert page.js("typeof window.hacked") == "undefined"
    assert page.js("document.scripts.length") == 2
    assert page.all("img, svg, iframe") == []
    # Line ends apart (a text area would do the same), every character arrived, the lone surrogate too.
    assert page.js(f"data.question[0][1] === {json.dumps(HOSTILE)}")
    # The driver cannot carry a lone surrogate.
    shown = page.js("document.querySelector('#detail .box .prose').textContent.replaceAll('\\ud800', '?')")
    assert shown.startswith(
        '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2"><!--<script>'
    )
    assert "{{data}}{{policy}}" in shown


def test_nothing_but_its_own_script_may_run(browser: Any, result: SearchResult, tmp_path: Path) -> None:
    page = Page(browser, save(result, tmp_path / "search.html"))
    page.js(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s);"
        "const d = document.createElement('div'); d.innerHTML = '<img src=x onerror=\"window.hacked = 2\">';"
        "document.body.append(d); fetch('https://example.invalid/').catch(() => {}); })()"
    )
    page.wait(lambda: len(browser.get_log("browser")) > 0)
    assert page.js("typeof window.hacked") == "undefined"
    assert requests(browser) == []


def test_dark_mode_and_narrow_windows(open_page: Opener, result: SearchResult) -> None:
    page = open_page(result)
    ground = "getComputedStyle(document.body).backgroundColor"
    chip = "document.querySelector('.row .chip:not(.none)').style.background"
    light = page.js(ground), page.js(chip)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.wait(lambda: page.js(ground) != light[0] and page.js(chip) != light[1])
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    metrics = {"width": 420, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.wait(lambda: page.js("innerWidth") == 420)
    assert page.js("document.documentElement.scrollWidth") <= 420
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_two_thousand_nodes_stay_fluid(open_page: Opener) -> None:
    result = run(Grow(rounds=500), FakeGenerator(close=0.01, step=0.1), max_tokens=20_000)
    assert result.tree is not None
    assert len(result.tree) > 2000
    page = open_page(result)
    assert len(page.shown) <= 150 + 4 * len(chosen_path(result))  # deep levels begin folded
    page.one("#unfold").click()
    assert len(page.shown) == len(result.tree)
    assert len(page.all(".row")) < 80  # only what is in view exists
    each = page.js(
        "(() => { const t = performance.now(); for (let i = 0; i < 100; i++) select(visible[i]);"
        " return (performance.now() - t) / 100; })()"
    )
    assert each < 100  # milliseconds a key, generous: this machine may be busy
    page.js("document.getElementById('tree').scrollTo(0, 1e9)")
    last = page.shown[-1]
    page.wait(lambda: bool(page.all(f"#row-{last}")))


@pytest.mark.parametrize("rounds", [0, 1])
def test_the_smallest_searches(open_page: Opener, rounds: int) -> None:
    result = run(Grow(rounds=rounds), scorer=None, selector="majority")
    page = open_page(result)
    assert page.shown[0] == 0


def test_a_tree_alone_and_a_conversation(browser: Any, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Well?"}]
    result = run(BestOfN(n=2), question=turns)
    assert result.tree is not None
    path = tmp_path / "tree.html"
    path.write_text(to_html(result.tree), encoding="utf-8")
    page = Page(browser, path)
    assert "Be brief." in page.one("#detail").text
    assert "Answer" not in page.one("#detail").text.split("\n")
    assert browser.get_log("browser") == []


def test_the_data_are_ascii_without_any_markup(hostile: SearchResult) -> None:
    page = to_html(hostile)
    data = _between(page, 'id="data">', "</script>")
    assert data.isascii()
    assert not set("<>&") & set(data)
    assert json.loads(data)["question"] == [["user", HOSTILE]]
    assert "{{policy}}" not in page.split("</head>")[0]
