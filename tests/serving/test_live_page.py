"""The page at `/` in a real browser: it asks, shows the tree as it grows, compares, cancels, and trusts no text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest

from tests.serving.servers import Paced, Running, serving
from tts_search.export.colors import DARK, LIGHT
from tts_search.serving.keys import VARIABLE, Keys
from tts_search.serving.searches import Search

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></textarea><script>document.title='owned'</script>\u202e"


class Live:
    """The page of a server, as one uses it."""

    def __init__(self, browser: Any, server: Running) -> None:
        self.browser = browser
        browser.get_log("browser")
        browser.get(server.url + "/")
        self.wait(lambda: self.one("#server").text != "" or self.one("#problem").text != "")

    def all(self, selector: str) -> list[Any]:
        """Elements, those that show alone."""
        return [found for found in self.browser.find_elements("css selector", selector) if found.is_displayed()]

    def one(self, selector: str) -> Any:
        """An element, whether it shows or not."""
        return self.browser.find_element("css selector", selector)

    def wait(self, ready: Callable[[], object], seconds: float = 120.0) -> None:
        """Until it is so."""
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, self.one("body").text
            time.sleep(0.02)

    def ask(self, question: str = "Why?", **fields: str) -> None:
        """Fill the form in and send it."""
        for name, value in {"question": question, **fields}.items():
            field = self.one(f"#{name}")
            field.clear()
            field.send_keys(value)
        self.one("#go").click()

    def states(self) -> list[str]:
        """What each search says of itself."""
        return [state.text for state in self.all(".state")]

    def run(self, script: str) -> Any:
        """The value of some JavaScript."""
        return self.browser.execute_script(f"return {script}")


def begun(server: Running) -> list[Search]:
    """Fills with the searches that begin from now on."""
    searches, found, begin = server.service.searches, list[Search](), server.service.searches.begin

    def remember(search: Search, fingerprint: str) -> None:
        found.append(search)
        begin(search, fingerprint)

    searches.begin = remember
    return found


@pytest.fixture
def open_live(browser: Any) -> Iterator[Callable[[Running], Live]]:
    """Opens a server's page; in the end its console must be empty."""
    yield lambda server: Live(browser, server)
    wrong = [line for line in browser.get_log("browser") if "responded with a status of" not in line["message"]]
    assert wrong == []


def test_a_search_is_shown_from_its_first_node_to_its_answer(open_live: Callable[[Running], Live]) -> None:
    engine = Paced(pace=0.002)
    with serving(engine) as server:
        engine.held.set()
        searches, live = begun(server), open_live(server)
        live.ask("Why is it so?", budget="400")
        live.wait(lambda: live.all(".stop"))
        assert not live.one("#go").is_enabled()
        engine.held.clear()
        live.wait(lambda: len(live.all(".row")) > 3)
        live.wait(lambda: "completed" in live.states()[0] or "budget" in live.states()[0])
        assert re.match(r"BestOfN\(n=8\): score 0\.\d\d, \d+ paths?, \d+ tokens, ", live.states()[0])
        (search,) = searches
        result = search.result
        assert result is not None
        assert result.tree is not None
        assert result.chosen is not None
        assert f"{result.usage.sampled_tokens:,} tokens" in live.states()[0]
        assert len(live.all(".row")) == len(result.tree) - 1
        assert live.one(".answer .prose").get_attribute("textContent") == (result.answer or "(no answer)")
        (chosen,) = [row for row in live.all(".row.chosen") if row.get_attribute("aria-selected") == "true"]
        assert chosen.get_attribute("data-index") == str(result.candidates[result.chosen].node)
        assert live.all(".explore")[0].get_attribute("href").endswith(f"/v1/searches/{search.id}?form=html")


def test_steps_are_walked_with_the_keyboard(open_live: Callable[[Running], Live]) -> None:
    with serving() as server:
        searches, live = begun(server), open_live(server)
        live.ask(budget="300")
        live.wait(lambda: "tokens," in live.states()[0])
        tree = live.all(".tree")[0]
        tree.send_keys("\ue011")  # home
        first = live.one('.row[aria-selected="true"]')
        assert first.get_attribute("id") == live.all(".row")[0].get_attribute("id")
        assert tree.get_attribute("aria-activedescendant") == first.get_attribute("id")
        tree.send_keys("\ue015")  # down
        assert live.one('.row[aria-selected="true"]').get_attribute("id") == live.all(".row")[1].get_attribute("id")
        node = int(live.one('.row[aria-selected="true"]').get_attribute("data-index"))
        (search,) = searches
        assert search.result is not None
        assert search.result.tree is not None
        scores = search.result.tree.nodes[node].step_scores
        shown = [chip.text for chip in live.all(".detail .chip")]
        assert shown == [f"{score:.2f}" for score in scores]


def test_two_searches_side_by_side(open_live: Callable[[Running], Live]) -> None:
    with serving() as server:
        searches, live = begun(server), open_live(server)
        live.one("#compare").click()
        live.wait(lambda: len(live.all(".search")) == 2)
        first, second = live.all("select.effort")
        assert second.get_attribute("value") == "fake:high"
        first.send_keys("none")
        live.ask(budget="600")
        live.wait(lambda: all("tokens, " in state for state in live.states()))
        asked = [(search.plan.model, str(search.plan.strategy)) for search in searches]
        assert sorted(asked) == [("fake:high", "BestOfN(n=32)"), ("fake:none", "BestOfN(n=1)")]


@pytest.mark.parametrize("how", ["button", "escape", "leave"])
def test_cancelling_frees_the_engine(open_live: Callable[[Running], Live], how: str) -> None:
    engine = Paced(pace=0.002)
    with serving(engine) as server:
        engine.held.set()
        searches, live = begun(server), open_live(server)
        live.ask()
        server.wait(lambda: len(searches) == 1)
        if how == "button":
            live.all(".stop")[0].click()
        elif how == "escape":
            live.one("body").send_keys("\ue00c")
        else:
            live.browser.get("about:blank")
        (search,) = searches
        server.wait(lambda: search.over)
        assert search.result is None
        if how != "leave":
            live.wait(lambda: "ancelled" in live.states()[0])
            assert live.one("#go").is_enabled()


def test_what_is_wrong_is_said(open_live: Callable[[Running], Live]) -> None:
    engine = Paced()
    with serving(engine) as server:
        live = open_live(server)
        engine.broken.set()
        live.ask()
        live.wait(lambda: live.all(".state.bad"))
        assert "secret" not in live.states()[0]
        assert live.one("#go").is_enabled()


def test_a_key_is_asked_for_where_the_server_wants_one(open_live: Callable[[Running], Live]) -> None:
    with serving(keys=Keys.read(None, {VARIABLE: "a-secret-of-mine"})) as server:
        live = open_live(server)
        assert live.one("#problem").text == "This server wants an API key."
        live.one("#key").send_keys("a-secret-of-mine\t")
        live.wait(lambda: live.one("#server").text)
        live.ask(budget="200")
        live.wait(lambda: "tokens, " in live.states()[0])
        assert not live.all(".explore"), "a link carries no key"
        assert live.all(".save")


def test_texts_are_text(open_live: Callable[[Running], Live]) -> None:
    with serving() as server:
        live = open_live(server)
        live.run(f"document.getElementById('question').value = {HOSTILE!r}")
        live.one("#go").click()
        live.wait(lambda: "tokens, " in live.states()[0])
        assert live.run("document.title") == "tts-search"
        assert not live.browser.find_elements("css selector", "main img, main script")


@pytest.mark.parametrize(("width", "scheme"), [(500, "light"), (1400, "dark")])
def test_nothing_overflows(open_live: Callable[[Running], Live], width: int, scheme: str) -> None:
    with serving() as server:
        live = open_live(server)
        size = live.browser.get_window_size()
        feature = {"name": "prefers-color-scheme", "value": scheme}
        try:
            live.browser.set_window_size(width, 900)
            live.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            live.one("#compare").click()
            live.ask(budget="300")
            live.wait(lambda: all("tokens, " in state for state in live.states()))
            assert live.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            unnamed = live.run(
                "[...document.querySelectorAll('button, select, input, textarea, [role=tree], a')].filter((e) => "
                "e.offsetParent && !(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-label'))).length"
            )
            assert unnamed == 0
        finally:
            live.browser.set_window_size(size["width"], size["height"])
            live.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_only_its_own_files_are_served() -> None:
    with serving() as server:
        for name in ("__init__.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "index.html"):
            assert server.http.get(f"/page/{name}").status_code == 404
        reply = server.http.get("/")
        assert "script-src 'self'" in reply.headers["content-security-policy"]
        assert not re.findall(r"https?://", reply.text)


def test_the_colours_are_those_of_a_saved_search() -> None:
    style = (files("tts_search.serving.page") / "page.css").read_text()
    assert re.findall(r"--scale: (.*);", style) == [" ".join(LIGHT), " ".join(DARK)]
