"""Oracle scorers: a trajectory is worth what a grader says of it, given the reference answer.

For upper bounds and oracle curves, and for tasks whose answers can be checked without a reference answer's being known
(unit tests). Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tts_search.core.tree import Trajectory
from tts_search.errors import ScorerError
from tts_search.scorers.text import question_text
from tts_search.thinking import behind_thoughts

Grader = Callable[[str, str], bool]
"""Whether an answer's text agrees with a reference; those of `tts_search.grading`, or a function of yours."""


class Verifier:
    """Scores every step of a trajectory 1 if the grader accepts its answer, else 0.

    A trajectory is scored when its thinking grew, before the policy has written an answer: what the grader gets is
    `answer(text)`, where the text is all that was written so far. By default that is what follows the thinking part
    where there is one, else everything.

    Args:
        grader: from an answer and a reference to whether the answer is right.
        references: the reference for each question, by the question's text, or a function of it.
        answer: from the text of a trajectory to what is graded.
    """

    aggregation = "last"

    def __init__(
        self,
        grader: Grader,
        references: Mapping[str, str] | Callable[[str], str],
        *,
        answer: Callable[[str], str] | None = None,
    ) -> None:
        self.grader = grader
        self._references = references
        self._answer = answer or behind_thoughts

    def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """1 or 0, once per finished step.

        Raises:
            ScorerError: there is no reference for a question.
        """
        return [[self._grade(t)] * len(t.step_ends) if t.step_ends else [] for t in trajectories]

    def _grade(self, trajectory: Trajectory) -> float:
        question = question_text(trajectory)
        try:
            references = self._references
            reference = references[question] if isinstance(references, Mapping) else references(question)
        except KeyError as error:
            raise ScorerError(f"the verifier has no reference for the question {question[:200]!r}") from error
        return float(self.grader(self._answer(trajectory.text), reference))
