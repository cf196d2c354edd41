"""What text scorers read of a trajectory, and the memory of what they scored."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.scorers.reward_checkpoints import trajectory
from tts_search.scorers.text import ScoreMemory, question_text, solution_text, step_texts

texts = st.text("ab", max_size=3)  # few, so that their borders can fall together
works = st.tuples(texts, st.lists(texts, max_size=3))


@given(works, works)
def test_keys_are_equal_for_equal_questions_and_steps_and_only_so(
    one: tuple[str, list[str]], other: tuple[str, list[str]]
) -> None:
    (question, steps), (asked, others) = one, other
    keys, theirs = ScoreMemory.keys(question, steps), ScoreMemory.keys(asked, others)
    assert len(keys) == len(steps)
    for i, key in enumerate(keys):
        for j, their in enumerate(theirs):
            assert (key == their) is (question == asked and steps[: i + 1] == others[: j + 1])


def test_keys_are_the_same_in_every_process_and_for_any_text() -> None:
    assert ScoreMemory.keys("é", ["\ud800"]) == ScoreMemory.keys("é", ["\ud800"])
    assert ScoreMemory.keys("\ud800", []) == []


def test_the_least_recently_used_is_forgotten_first() -> None:
    memory = ScoreMemory[float](2)
    memory.put(b"a", 0.0)
    memory.put(b"b", 1.0)
    assert memory.get(b"a") == 0.0, "a score of 0 is a score"
    memory.put(b"c", 2.0)
    assert [memory.get(key) for key in (b"a", b"b", b"c")] == [0.0, None, 2.0]
    memory.put(b"a", 3.0)
    memory.put(b"d", 4.0)
    assert [memory.get(key) for key in (b"a", b"c", b"d")] == [3.0, None, 4.0]


def test_what_is_read() -> None:
    told = trajectory(["<think>\nFirst.", " Then ", "So</think>22."], "What is 13 + 9?")
    assert step_texts(told) == ["First.", "Then", "So22."]
    assert question_text(told) == "What is 13 + 9?"
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"})
    chat = (*turns, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Why?"})
    assert question_text(replace(told, question=chat)) == "Hello\n\nHi\n\nWhy?"


def test_a_solution_is_what_was_finished() -> None:
    told = trajectory(["First.", "So</think>22."])
    assert "and then" in told.text, "a step that is not finished"
    solution = solution_text(told)
    assert solution.startswith("First.")
    assert solution.endswith("22.")
    assert "think>" not in solution
    assert solution_text(trajectory([])) == ""
