"""inspect-ai: an evaluation of 20 number puzzles, graded by a scorer of its own."""

import ast
import random
import re
import tempfile
from importlib.metadata import version

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.solver import generate

SAMPLES = 20


def puzzle(seed: int) -> Sample:
    """Four numbers, and a target that they make."""
    chance = random.Random(seed)
    a, b, c, d = (chance.randint(1, 15) for _ in range(4))
    target = a + b + c - d
    return Sample(
        input=f"Using the numbers {a}, {b}, {c} and {d}, make {target}.",
        target=str(target),
        metadata={"numbers": [a, b, c, d]},
    )


def value(text: str) -> float:
    """Of a sum in digits, brackets and four signs."""
    tree = ast.parse(text, mode="eval")
    return float(eval(compile(tree, "answer", "eval"), {"__builtins__": {}}))


@scorer(metrics=[accuracy()])
def makes_it():
    """Whether the answer uses the numbers and makes the target."""

    async def score(state, target) -> Score:
        said = state.output.completion
        left = said.split("=")[0].strip()
        try:
            right = sorted(map(int, re.findall(r"\d+", left))) == sorted(state.metadata["numbers"])
            right = right and bool(re.fullmatch(r"[\d+\-*/() ]+", left)) and value(left) == float(target.text)
        except (SyntaxError, ZeroDivisionError, ValueError):
            right = False
        return Score(value=1 if right else 0, answer=said)

    return score


task = Task(dataset=[puzzle(seed) for seed in range(SAMPLES)], solver=generate(), scorer=makes_it())
with tempfile.TemporaryDirectory() as folder:
    (log,) = evaluate(
        task,
        model="openai/embedded",
        model_args={"responses_api": False},
        reasoning_effort="high",
        log_dir=folder,
        display="none",
    )
    assert log.status == "success", log.error
    assert len(log.samples) == SAMPLES and not any(sample.error for sample in log.samples)
    correct = log.results.scores[0].metrics["accuracy"].value
    tokens = sum(usage.output_tokens for usage in log.stats.model_usage.values())
    reasoning = sum(usage.reasoning_tokens or 0 for usage in log.stats.model_usage.values())
assert correct > 0.3 and 0 < reasoning <= tokens
print(
    f"inspect-ai {version('inspect-ai')}: {SAMPLES} puzzles, accuracy {correct:.2f}, {tokens:,} tokens, "
    f"{reasoning:,} of reasoning"
)
