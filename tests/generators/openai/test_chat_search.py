"""Searches over a chat service: what they spend, what is refused before anything is, and what a result says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("aiohttp")

from tests.generators.openai.chat_server import CONTENT, PROMPT_TOKENS, THINKING, ChatByHeart
from tests.generators.openai.misbehaving_server import MODEL, at_work
from tts_search import export
from tts_search.api import Searcher
from tts_search.cli import app
from tts_search.core.protocols import Expand, Plan, Strategy, Until
from tts_search.core.result import SearchResult, StopReason
from tts_search.core.tree import Ending, Trajectory, Tree
from tts_search.errors import InvalidInputError, ModelNotFoundError, StrategyError
from tts_search.export.rows import rows
from tts_search.generators.openai import ChatGenerator, OpenAIGenerator
from tts_search.strategies.best_of_n import BestOfN
from tts_search.testing.fakes import FakeScorer
from tts_search.training.collection import collect

pytestmark = pytest.mark.usefixtures("quick")
ALL = len(THINKING) + len(CONTENT) + 1


@pytest.fixture
def serve() -> Iterator[Callable[..., ChatByHeart]]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(at_work(ChatByHeart(**settings)))


def chat(server: ChatByHeart) -> str:
    return f"{server.url}/chat/completions"


def test_best_of_n_with_votes(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    with Searcher(MODEL, generator=chat(server)) as searcher:
        assert isinstance(searcher.generator, ChatGenerator)
        result = searcher.search("Make 87.", strategy=BestOfN(n=4), system="Be brief.")
    assert (result.answer, result.thinking) == ("".join(CONTENT).strip(), "".join(THINKING))
    assert result.selector == "majority"
    assert result.stop_reason is StopReason.COMPLETED
    assert [candidate.vote for candidate in result.candidates] == ["87"] * 4
    usage = result.usage
    assert (usage.sampled_tokens, usage.prompt_tokens, usage.cached_tokens) == (4 * ALL, 4 * PROMPT_TOKENS, 16)
    assert usage.requests == 4
    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert len({body["seed"] for body in server.bodies}) == 4
    assert len(set(server.sessions)) == 1


def test_the_chosen_answers_log_probabilities(serve: Callable[..., ChatByHeart]) -> None:
    with Searcher(generator=chat(serve())) as searcher:
        result = searcher.search("Make 87.", strategy=BestOfN(n=2), selector="logprob")
    assert {candidate.mean_logprob for candidate in result.candidates} == {-0.25}
    with Searcher(generator=chat(serve(refuses={"logprobs": "no logprobs here"}))) as searcher:
        with pytest.raises(InvalidInputError, match="needs log-probabilities"):
            searcher.search("Make 87.", strategy=BestOfN(n=2), selector="logprob")
        result = searcher.search("Make 87.", strategy=BestOfN(n=2))
    assert {candidate.mean_logprob for candidate in result.candidates} == {None}
    assert any("takes no logprobs" in warning for warning in result.warnings)


def test_steps_are_scored_whatever_scores_them(serve: Callable[..., ChatByHeart]) -> None:
    seen: list[str] = []

    class Outcome:
        def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
            seen.extend(trajectory.text for trajectory in trajectories)
            return [[0.5] * trajectory.step_count for trajectory in trajectories]

    with Searcher(generator=chat(serve()), scorer=Outcome()) as searcher:
        result = searcher.search("Make 87.", strategy=BestOfN(n=3))
    assert result.selector == "best"
    assert result.score == pytest.approx(0.5)
    assert [step.text for step in result.steps][:2] == ["<think>Add the two largest.\n\n", "That is 22.\n\n"]
    assert seen == [f"<think>{''.join(THINKING)}</think>{''.join(CONTENT)}"] * 3


@pytest.mark.parametrize("strategy", ["beam", "dvts", "mcts", "best_first"])
def test_a_tree_search_is_refused_before_anything_is_spent(serve: Callable[..., ChatByHeart], strategy: str) -> None:
    server = serve()
    with Searcher(generator=chat(server), scorer=FakeScorer()) as searcher:
        for repeat in (False, True):
            with pytest.raises(InvalidInputError, match="is a chat service, which answers from the beginning alone"):
                searcher.search("Make 87.", strategy=strategy, repeat=repeat, budget=200)
    assert server.bodies == []


def step_by_step(tree: Tree) -> Plan:
    yield [Expand(tree.root, until=Until.STEP)]


def going_on(tree: Tree) -> Plan:
    ((node,),) = yield [Expand(tree.root, until=Until.THOUGHT, max_tokens=1)]
    yield [Expand(node, until=Until.END)]


@pytest.mark.parametrize(("plan", "asked"), [(step_by_step, 0), (going_on, 1)])
def test_a_plan_of_the_users_is_refused_where_it_asks_for_what_there_is_not(
    serve: Callable[..., ChatByHeart], plan: Strategy, asked: int
) -> None:
    server = serve()
    with Searcher(generator=chat(server)) as searcher:
        server.longest = 3
        with pytest.raises(StrategyError, match=r"gives whole responses alone\. Take strategy='best_of_n'"):
            searcher.search("Make 87.", strategy=plan, answer_tokens=1)
    assert server.statuses.count(200) == asked + 1


@example(budget=3, n=1, max_tokens=1, answer_tokens=2, repeat=False, selector="majority", faults=["cut"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    budget=st.integers(1, 150),
    n=st.integers(1, 9),
    max_tokens=st.integers(1, 60),
    answer_tokens=st.integers(1, 20),
    repeat=st.booleans(),
    selector=st.sampled_from(["majority", "best", "logprob"]),
    faults=st.lists(st.sampled_from(["", "cut", "no usage", "thinking in the total", "filtered", "nulls"]), max_size=4),
)
def test_no_budget_is_exceeded(
    one_server: ChatByHeart, budget: int, n: int, max_tokens: int, answer_tokens: int, repeat: bool, selector: str,
    faults: list[str],
) -> None:  # fmt: skip
    one_server.faults.clear()
    one_server.faults.extend(faults)
    live: list[int] = []
    with Searcher(
        generator=ChatGenerator(one_server.url, context_tokens=400, model=MODEL), scorer=FakeScorer()
    ) as searcher:
        result = searcher.search(
            "Make 87.",
            strategy=BestOfN(n=n),
            budget=budget,
            max_tokens=max_tokens,
            answer_tokens=answer_tokens,
            repeat=repeat,
            selector=selector,
            on_progress=lambda progress: live.append(progress.sampled_tokens),
        )
    assert 1 <= result.usage.sampled_tokens <= budget
    assert max(live) <= budget
    assert result.usage.answer_tokens == 0
    assert result.tree is not None
    assert sum(node.counted_tokens or 0 for node in result.tree) == result.usage.sampled_tokens
    assert len(result.tree.children(result.tree.root)) == len(result.tree) - 1, "every sample starts at the root"


@pytest.fixture(scope="module")
def one_server() -> Iterator[ChatByHeart]:
    with at_work(ChatByHeart()) as server:
        yield server


def search(server: ChatByHeart, budget: int | None, **options: object) -> SearchResult:
    with Searcher(generator=chat(server)) as searcher:
        return searcher.search("Make 87.", strategy=BestOfN(n=4), budget=budget, **options)  # type: ignore[arg-type]


def test_where_a_budget_pays_for_some_the_others_are_not_begun(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    result = search(server, 2 * ALL + 5)
    ends = [node.ending for node in result.tree or () if node.index]
    assert ends[:2] == [Ending.END, Ending.END]
    assert result.stop_reason is StopReason.BUDGET
    assert result.answer == "".join(CONTENT).strip()


def test_a_thought_that_the_budget_cuts_off_is_no_answer(serve: Callable[..., ChatByHeart]) -> None:
    result = search(serve(), 4)
    assert (result.answer, result.stop_reason) == ("", StopReason.BUDGET)
    assert result.thinking == "".join(THINKING[:4])
    assert result.usage.sampled_tokens == 4
    result = search(serve(), None, max_tokens=2, answer_tokens=1)
    assert (result.answer, result.stop_reason) == ("", StopReason.LENGTH)


def test_a_saved_search_counts_as_the_service_does(serve: Callable[..., ChatByHeart], tmp_path: Path) -> None:
    result = search(serve(), None)
    export.save(result, tmp_path / "tree.json")
    again = export.from_json((tmp_path / "tree.json").read_text())
    assert again.tree is not None
    assert result.tree is not None
    assert [node.token_count for node in again.tree] == [0] + [ALL] * 4
    assert [node.token_length for node in again.tree] == [0] + [ALL] * 4
    for row in rows(again):
        assert sum(piece.tokens for piece in row.pieces) == row.node.token_count


def test_nothing_is_trained_on_ids_that_are_none(serve: Callable[..., ChatByHeart], tmp_path: Path) -> None:
    server = serve()
    with (
        Searcher(generator=chat(server)) as searcher,
        pytest.raises(InvalidInputError, match="no token ids to train on"),
    ):
        collect(searcher, [], tmp_path / "out.jsonl", grader=lambda *_: True)


def test_the_command_line_takes_a_chats_url(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    arguments = ["solve", "Make 87.", "--model", MODEL, "--generator", chat(server), "-n", "3", "--json"]
    solved = CliRunner().invoke(app, arguments)
    assert solved.exit_code == 0, solved.output
    assert json.loads(solved.stdout)["answer"] == "".join(CONTENT).strip()
    refused = CliRunner().invoke(app, [*arguments[:-3], "--strategy", "beam"])
    assert refused.exit_code != 0
    assert "chat service" in " ".join(refused.output.split())


def test_who_names_a_chat_without_saying_so_is_told_how(serve: Callable[..., ChatByHeart], folder: Path) -> None:
    server = serve()
    server.faults.append("404")
    generator = OpenAIGenerator(server.url, model=MODEL, tokenizer=folder)
    with (
        Searcher(generator=generator) as searcher,
        pytest.raises(ModelNotFoundError, match="its whole URL"),
    ):
        searcher.search("Make 87.", strategy="single")


def test_a_log_keeps_whole_responses_with_their_account(serve: Callable[..., ChatByHeart], tmp_path: Path) -> None:
    log, server = tmp_path / "searches.log", serve(refuses={"logprobs": "no logprobs here"})
    with Searcher(generator=chat(server)) as searcher:
        first = searcher.search("Make 87.", strategy=BestOfN(n=3), log=log)
        asked = len(server.bodies)
        again = searcher.search("Make 87.", strategy=BestOfN(n=3), log=log)
        other = searcher.search("Make 88.", strategy=BestOfN(n=1), log=log)
    assert len(server.bodies) == asked + 1, "only the new question is asked"
    assert other.usage.requests == 1
    assert again.warnings == first.warnings
    assert any("takes no logprobs" in warning for warning in first.warnings)
    assert (again.answer, again.usage.sampled_tokens) == (first.answer, 3 * ALL)
    assert again.usage.prompt_tokens == first.usage.prompt_tokens == 3 * PROMPT_TOKENS
    assert {candidate.mean_logprob for candidate in again.candidates} == {None}
