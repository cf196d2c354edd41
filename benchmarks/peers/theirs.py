"""One run of its_hub or treequest over the same endpoint, for `compare.py`; runs in their own environment.

    python benchmarks/peers/theirs.py WHAT URL QUESTIONS

WHAT: `particles` and `beam` (its_hub over steps), `best_of_16` (its_hub), `mcts` (treequest over its_hub's client).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
import time
import warnings
from typing import Any

warnings.simplefilter("ignore")

from its_hub.api.reward_models.prm import AbstractProcessRewardModel  # noqa: E402
from its_hub.core.algorithms.bon import BestOfN  # noqa: E402
from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel  # noqa: E402
from its_hub.core.lms.step_generation import StepGeneration  # noqa: E402
from its_hub.core.orchestrator import LMOrchestrator  # noqa: E402

STEP = ".\n\n"
MCTS_TOKENS = 2_400
STEP_TOKENS = 24  # on average
STEPS = 6  # as the engine has them: behind them comes the answer


def value(text: str) -> float:
    return hashlib.blake2b(text.encode(), digest_size=2).digest()[0] / 255


class Instant(AbstractProcessRewardModel):
    """Scores a text by a hash of it."""

    def score(self, prompt_or_messages: Any, steps: Any) -> Any:
        del prompt_or_messages
        return value(steps) if isinstance(steps, str) else [value(step) for step in steps]

    async def ascore(self, prompt_or_messages: Any, steps: Any) -> Any:
        return self.score(prompt_or_messages, steps)


class InstantOutcome:
    """The same, for whole answers."""

    async def ascore(self, conversations: Any, **_: Any) -> list[float]:
        return [value(str(conversation[-1].content)) for conversation in conversations]


async def mcts(lm: OpenAICompatibleLanguageModel, question: str) -> None:
    import treequest
    from its_hub.api import ChatMessage

    algorithm = treequest.ABMCTSA()  # its StandardMCTS has no more than one node's samples in flight
    state, tokens = algorithm.init_tree(), 0

    async def goes_on(said: str, **options: Any) -> str:
        messages = [ChatMessage(role="user", content=question)]
        messages += [ChatMessage(role="assistant", content=said)] if said else []
        return said + (await lm.agenerate(messages, **options))["content"]

    async def sample(parent: str | None) -> tuple[str, float]:
        text = await goes_on(parent or "", stop=STEP, include_stop_str_in_output=True)
        return text, value(text)

    while tokens < MCTS_TOKENS:
        state, trials = algorithm.ask_batch(state, 16, ["step"])
        done = await asyncio.gather(*(sample(trial.parent_state) for trial in trials))
        for trial, result in zip(trials, done, strict=True):
            state = algorithm.tell(state, trial.trial_id, result)
            tokens += STEP_TOKENS
    ((best, _),) = treequest.top_k(state, algorithm, k=1)
    await goes_on(best)  # a state is some steps of a solution, and an answer is asked for


async def searches(what: str, url: str, questions: int) -> None:
    lm = OpenAICompatibleLanguageModel(f"{url}/v1", "none", "stub", temperature=0.8)
    steps = StepGeneration(max_steps=STEPS, step_token=STEP, stop_token="<|im_end|>", include_stop_str_in_output=True)
    asked = [f"Question {number}: how many?" for number in range(questions)]
    try:
        if what == "mcts":
            await asyncio.gather(*(mcts(lm, question) for question in asked))
            return
        if what == "best_of_16":
            algorithm: Any = BestOfN(InstantOutcome(), orchestrator=LMOrchestrator(max_concurrency=-1))
        elif what == "particles":
            from its_hub.core.algorithms.particle_gibbs import ParticleFiltering

            algorithm = ParticleFiltering(steps, Instant())
        else:
            from its_hub.core.algorithms.beam_search import BeamSearch

            algorithm = BeamSearch(steps, Instant(), beam_width=4)
        await asyncio.gather(*(algorithm.ainfer(lm, question, budget=16) for question in asked))
    finally:
        await lm.close_session()


def main(what: str, url: str, questions: int) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    asyncio.run(searches(what, url, questions))
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": spent - before.ru_utime - before.ru_stime, "process_cpu": spent}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
