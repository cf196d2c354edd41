r"""What this model writes between steps: a step rule settled once for each model, from fixed prompts.

A model without a head of its own brings no step rule, and none fits all: some end paragraphs with `.\n\n`, some with
`:\n\n`, some write a step a line, some in Chinese. So it is asked a few fixed questions, at temperature 0, and the
coarsest rule is taken that cuts what it wrote into pieces a scorer can judge. Nothing depends on what users ask, or
when. Knows a generator; it knows no file and no search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tts_search.core.protocols import Generator, Request
from tts_search.segmentation import Contains, Phase, Segmenter
from tts_search.thinking import spoken_thought

PROMPTS: Final = (
    "Natalia sold clips to 48 of her friends in April, and half as many in May. How many clips did she sell in both "
    "months together? Think step by step.",
    "A rectangle is 3 cm longer than it is wide, and its perimeter is 34 cm. What is its area? Explain every step.",
    "How does one find out whether 221 is a prime number? Show your work.",
    "小明有24个苹果，给了弟弟三分之一，又买了5个。他现在有多少个苹果？请一步一步地思考。",
)
TOKENS: Final = 256  # of each answer: enough for some steps
LEAST_TOKENS: Final = 24  # an answer shorter than this says nothing of steps
LONGEST_STEP: Final = 600  # characters, at the median: what is longer holds several steps
SHORTEST_STEP: Final = 8  # characters, at the median: what is shorter is a part of one

PARAGRAPHS: Final = Contains((".\n\n", ".\r\n\r\n", "。\n\n", "。\r\n\r\n"))
BLANK_LINES: Final = Contains(("\n\n", "\r\n\r\n"))
LINES: Final = Contains("\n")
CHINESE_STOPS: Final = Contains(("。", "！", "？", "；"))
RULES: Final = (PARAGRAPHS, BLANK_LINES, LINES, CHINESE_STOPS)
"""From coarse to fine. A numbered list is one of lines, or of blank lines."""


async def written_by(engine: Generator, segmenter: Segmenter) -> list[str]:
    """What the model writes to the fixed prompts: the thinking, or the whole response where it does not think.

    Prompts that leave no room in the model's context are left out.
    """
    tokenizer = engine.tokenizer
    whole = not getattr(engine, "starts_anywhere", True)
    stops = tokenizer.eos_ids | (segmenter.closing.ends if segmenter.closing else frozenset())

    async def one(number: int, prompt: tuple[int, ...]) -> str:
        room = min(TOKENS, engine.context_tokens - (0 if whole else len(prompt)))
        state, ids = segmenter.start(prompt), list[int]()
        while room > len(ids) and not (ids and (ids[-1] in tokenizer.eos_ids or state.phase is Phase.ANSWER)):
            request = Request(
                prefix=(*prompt, *ids),
                seeds=(number,),
                max_tokens=room - len(ids),
                stop_ids=stops,
                sampling=replace(engine.sampling, temperature=0.0),
                messages=None if ids else PROMPTS[number],
            )
            (completion,) = await engine.generate(request)
            _, state = segmenter.scan(state, completion.token_ids)
            ids += completion.token_ids
            if whole:  # it cannot go on from where it stopped
                break
        if len(ids) < LEAST_TOKENS:
            return ""
        text = tokenizer.decode(ids)
        spoken = spoken_thought(text)
        return spoken.thinking if spoken and spoken.thinking.strip() else text

    prompts = [(number, tokenizer.render(prompt)) for number, prompt in enumerate(PROMPTS)]
    fitting = [
        (number, prompt) for number, prompt in prompts if engine.context_tokens - len(prompt) >= LEAST_TOKENS + 1
    ]
    return list(await asyncio.gather(*[one(number, prompt) for number, prompt in fitting]))


def rule_for(texts: Sequence[str]) -> Contains | None:
    """The coarsest rule that cuts most of these texts into steps of a usual length; None where none does.

    Paragraphs that end with a full stop go before blank lines of any kind if they are most of them.
    """
    told = [text for text in texts if text.strip()]
    for rule in RULES:
        cut = [steps_of(text, rule) for text in told]
        usual = [steps for steps in cut if len(steps) > 1]
        lengths = sorted(len(step.strip()) for steps in usual for step in steps)
        if not usual or 2 * len(usual) < len(told):
            continue
        if rule is PARAGRAPHS and 2 * sum(map(len, cut)) < sum(len(steps_of(text, BLANK_LINES)) for text in told):
            continue
        if SHORTEST_STEP <= lengths[len(lengths) // 2] <= LONGEST_STEP:
            ends = (rule.text,) if isinstance(rule.text, str) else rule.text
            seen = tuple(end for end in ends if any(end in text for text in told))
            return Contains(seen[0] if len(seen) == 1 else seen)
    return None


def steps_of(text: str, rule: Contains) -> list[str]:
    """A text cut as the rule cuts it, what follows the last step included."""
    steps = [text]
    for end in (rule.text,) if isinstance(rule.text, str) else rule.text:
        steps = [part for step in steps for part in _split(step, end)]
    return [step for step in steps if step.strip()]


def _split(text: str, end: str) -> list[str]:
    *whole, rest = text.split(end)
    return [*(part + end for part in whole if part.strip()), rest]
