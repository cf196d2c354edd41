r"""Generative judges: models that write a critique and then say Yes or No. ThinkPRM, GenPRM, and a base for others.

The score is `p(yes) / (p(yes) + p(no))` at the verdict, averaged over `votes` critiques. A critique costs as much as a
solution, so judges are slow; what they wrote is remembered. They know text; they know no search.

To add a judge, subclass `GenerativeJudge`: say what is asked in `prompt`, which texts end a critique in `stops`, what
leads up to the verdict in `lead`, and the two words in `yes` and `no`. Override `critique` for more than one passage.
"""

from __future__ import annotations

import bisect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from tts_search.core.protocols import Scores
from tts_search.core.tree import Trajectory
from tts_search.errors import InvalidInputError, MissingDependencyError
from tts_search.models import model_folder, model_name
from tts_search.scorers.engine_sprm import probability
from tts_search.scorers.text import ContextError, ScoreMemory, beyond, question_text, step_texts

if TYPE_CHECKING:
    from tts_search.scorers.writer import Writer


class GenerativeJudge(ABC):
    """A judge as a `Scorer`. With `each_step` every step gets a verdict of its own, else all get that of the whole.

    Args:
        writer: the model.
        votes: critiques per verdict.
        temperature: 0 takes the likeliest token always; more than one vote needs more.
        max_tokens: limit of one passage of a critique.
    """

    aggregation = "last"
    each_step: ClassVar[bool] = False
    stops: ClassVar[Sequence[str]] = ()
    lead: ClassVar[str]
    yes: ClassVar[str]
    no: ClassVar[str]
    tail: ClassVar[str] = ""
    """What a critique ends with behind its verdict, where later ones are written in view of it."""

    def __init__(
        self, writer: Writer, *, name: str, votes: int = 1, temperature: float = 0.0, max_tokens: int = 4096
    ) -> None:
        if votes < 1 or max_tokens < 1 or temperature < 0:
            raise InvalidInputError(
                f"a judge needs votes >= 1, max_tokens >= 1 and temperature >= 0; got {votes}, {max_tokens} and "
                f"{temperature}"
            )
        if votes > 1 and temperature == 0:
            raise InvalidInputError(f"{votes} votes at temperature 0 are all the same: give a temperature, such as 0.6")
        self.writer = writer
        self.name = name
        self.votes = votes
        self.temperature = temperature
        self.max_tokens = max_tokens
        self._words = (writer.token(self.yes), writer.token(self.no))
        self._memory = ScoreMemory[tuple[float, str]](65_536)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, votes={self.votes}, temperature={self.temperature})"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        votes: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 4096,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Self:
        """Load a checkpoint into this process, by way of transformers.

        Raises:
            ModelNotFoundError: no such checkpoint.
            InvalidInputError: its tokenizer has no chat template, or writes a verdict as several tokens.
        """
        try:
            from tts_search.scorers.writer import Writer
        except ImportError as error:
            raise MissingDependencyError(
                f"judges need torch and transformers ({error}): pip install torch transformers"
            ) from error
        writer = Writer.from_pretrained(model_folder(name_or_path), device=device, dtype=dtype)
        return cls(writer, name=model_name(name_or_path), votes=votes, temperature=temperature, max_tokens=max_tokens)

    @abstractmethod
    def prompt(self, question: str, steps: Sequence[str], critiques: Sequence[str]) -> str:
        """What the model continues with a critique of the last step, or of all of them.

        `critiques` are those of the steps in front of the last, where every step gets its own: whole, with verdicts.
        """

    def critique(self, prompt: str, step: int, seed: int) -> str:  # noqa: ARG002 - for those who override it
        """One critique, up to where the verdict is asked for; `step` counts from 1."""
        return self.write(prompt, seed)

    def write(self, text: str, seed: int, stops: Sequence[str] | None = None) -> str:
        """What the model writes behind `text`, up to and with one of the stops, or its end-of-text token."""
        chosen = self.stops if stops is None else stops
        return self.writer.write(
            text, stops=chosen, max_tokens=self.max_tokens, temperature=self.temperature, seed=seed
        )

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        """One value per finished step; none for the steps beyond the model's context."""
        with self._lock:
            before = self.writer.tokens
            values = [self._judge(question_text(t), step_texts(t)) for t in trajectories]
            cut = any(len(value) < t.step_count for value, t in zip(values, trajectories, strict=True))
            unread = beyond(self, self.writer.max_tokens) if cut else None
            return Scores(values, tokens=self.writer.tokens - before, unread=unread)

    def _judge(self, question: str, steps: list[str]) -> list[float]:
        if not steps:
            return []
        keys = self._memory.keys(question, steps)
        if not self.each_step:
            read = len(steps)
            try:
                value, _ = self._verdict(question, steps, [], keys[-1])
            except ContextError:
                read = self._fitting(question, steps)
                value = self._verdict(question, steps[:read], [], keys[read - 1])[0] if read else 0.0
            return [value] * read
        values: list[float] = []
        critiques: list[str] = []
        with suppress(ContextError):
            for number, key in enumerate(keys, start=1):
                value, critique = self._verdict(question, steps[:number], critiques, key)
                values.append(value)
                critiques.append(critique)
        return values

    def _fitting(self, question: str, steps: Sequence[str]) -> int:
        """How many of too many steps leave the model room for a critique: an eighth of its context."""
        room = self.writer.max_tokens - self.writer.max_tokens // 8
        return bisect.bisect_left(
            range(1, len(steps)), True, key=lambda n: self.writer.count(self.prompt(question, steps[:n], [])) > room
        )

    def _verdict(self, question: str, steps: Sequence[str], critiques: Sequence[str], key: bytes) -> tuple[float, str]:
        """The value of the last step and the first of its critiques, whole; from memory where it was judged before."""
        if (known := self._memory.get(key)) is not None:
            return known
        prompt = self.prompt(question, steps, critiques)
        total, first = 0.0, ""
        for vote in range(self.votes):
            seed = int.from_bytes(key[:7]) + vote  # from what is judged, never from the order of arrival
            critique = self.critique(prompt, len(steps), seed)
            asked = critique if critique.endswith(self.lead) else f"{critique.rstrip()}\n{self.lead}"
            value = probability(self.writer.preference(prompt + asked, *self._words))
            total += value
            first = first or asked + (self.yes if value >= 0.5 else self.no) + self.tail
        self._memory.put(key, (total / self.votes, first))
        return total / self.votes, first


class ThinkPRM(GenerativeJudge):
    """ThinkPRM-1.5B, -7B and -14B: one critique of all steps, then "Is the solution correct?" (their model card).

    A critique that goes on to a step that is not there is stopped in front of it (their code for searches).
    """

    stops = ("Is the solution correct?",)
    lead = "Is the solution correct?"
    yes, no = " Yes", " No"

    def prompt(self, question: str, steps: Sequence[str], critiques: Sequence[str]) -> str:  # noqa: ARG002
        solution = "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, start=1))
        asked = (
            "You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n"
            f"{question}\n\n[Solution]\n\n{solution}\n\n"
            "Review and critique each step in the proposed solution to determine whether each step is correct. "
            "If the solution is incomplete, only verify the provided steps\n"
        )
        chat = self.writer.chat([{"role": "user", "content": asked}], open_answer=True)
        return f"{chat}\nLet's verify step by step:"

    def critique(self, prompt: str, step: int, seed: int) -> str:
        beyond = f"Step {step + 1}:"
        return self.write(prompt, seed, [*self.stops, beyond]).removesuffix(beyond)


class GenPRM(GenerativeJudge):
    r"""GenPRM-1.5B, -7B and -32B: for each step an analysis, code and its output, and a boxed Yes or No.

    Each is written behind the whole outputs on the steps before, verdicts included (their evaluation).
    Code that a model wrote is run only if `execute` is set to a function of yours, from code to its output, which
    should be a sandbox; without one the model judges by its analysis alone.
    """

    execute: Callable[[str], str] | None = None

    aggregation = "min"  # none is published: a chain is worth its weakest step
    each_step = True
    lead = "<output>\n**Judgement**: $\\boxed{"
    yes, no = "Yes", "No"
    tail = "}$\n</output>\n"
    system = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
    rounds = 3  # of code and output, at most

    def prompt(self, question: str, steps: Sequence[str], critiques: Sequence[str]) -> str:
        turns: list[Mapping[str, str]] = [{"role": "system", "content": self.system}]
        for number, step in enumerate(steps):
            turns.append({"role": "user", "content": f"Question: {question}\n\n{step}" if number == 0 else step})
            if number < len(critiques):
                turns.append({"role": "assistant", "content": critiques[number]})
        return self.writer.chat(turns, open_answer=False)

    def critique(self, prompt: str, step: int, seed: int) -> str:
        text = f"<analyze>\nLet's analyze the Paragraph {step} step by step: "
        text += self.write(prompt + text, seed, ["</analyze>\n"])
        if self.execute is None:
            return text
        text += "<verify>\nLet's use python code to find any potential error:\n```python\n"
        for _ in range(self.rounds):
            text += self.write(prompt + text, seed, ["\n```\n", "</verify>\n", "<output>"])
            if not text.endswith("\n```\n"):
                break
            code = text.rpartition("```python")[2].removesuffix("```\n")
            text += f"[Code Output]\n\n```\n{self.execute(code.strip())}\n```\n"
        return text.removesuffix("<output>")
