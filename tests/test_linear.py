r"""What reads a model's words takes time in proportion to them, never to their square.

No clock decides: ten times the text usually takes some ten times as long, but a busy machine can make it twenty. Such a
text is only suspected, and then read at thirty times the length by a fork that the kernel ends after 150 times the
processor time; reading in proportion takes 30 times as much, reading by the square 900 times.
"""

from __future__ import annotations

import ast
import gc
import math
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import tts_search
from tts_search.embedded import puzzles
from tts_search.export import page
from tts_search.export.graphs import _xml_attributes
from tts_search.export.text_tree import _one_line
from tts_search.generators.openai.transcriber import Transcriber
from tts_search.generators.openai.watch import most_tokens
from tts_search.generators.user_text import UserText
from tts_search.grading import answers, code, plain, programs, reading
from tts_search.grading import math as math_grader
from tts_search.grading.choice import released_choice
from tts_search.grading.named import exact_match
from tts_search.paper.step_scores import first_error
from tts_search.scorers.process.families import MathShepherd, RLHFlowPRM, VersaPRM
from tts_search.segmentation import Contains, Segmenter
from tts_search.selection.votes import EXTRACTS
from tts_search.testing.fakes import FakeTokenizer
from tts_search.thinking import behind_thoughts, spoken_thought, without_thoughts
from tts_search.training.rewards import well_formed

SHORT, LONG, MOST = 4_000, 40_000, 15
FLOOR = 0.0005  # seconds of processor time for the short text: below it the clock's grain is compared
TRIES = 20  # until a text is suspected
FURTHER, PROVED = 30, 150  # so many times the length, in at most so many times the time
PUZZLE = puzzles.Puzzle((4, 6, 9, 13), 87)

UNITS = (
    *("*", " ", "\n", "\n ", "\t"),
    *("_", "$", "．", "。", "7", ",", "7,", "9*", ".", " .", "-", "`", "```", "```\n", "```python\n"),
    *("{", "}", "(", "\\", "\\ ", "\\{", "\\boxed{", "\\boxed {", "\\fbox{}", "\\frac{", "\\text{", "\\color{a", "^{ "),
    *("<think", "<x>", "</x>", "<x></x>", "[THINK]", "◁/think▷", "<|channel|>", "~~~", "````", "    ```\n", "√(", "½"),
    *("或", "5 km ", "e9", "0.(3", "#### ", "**", "A) x", "So A", "is the answer", "\\(", "\\[", "$x$ and "),
    *("answer is ", "answer: ", "answer ", "Answer: a ", "correct ", "option ", "答案", "答案：", "选项", "ки"),
    *("Step 1: ", "<think>", "</think>", "</think", ".\n\n", "=", "4 + 9 = 13. ", "[", "[7, "),
    *("the ", "3 hours ", "minus ", "1:2:", "3万", "</s>", "<|im_end|> "),
    *("\u0301\u0316", "\u0f73\u0344", "ａ\u0301"),
)  # fmt: skip
FRAMES = (
    ("", "!"),
    ("The answer is ", "!"),
    ("The answer ", "!"),
    ("\\boxed{", "!"),
    ("```\n", "!"),
    ("\\boxed{a", "b}"),
)


def texts(length: int) -> Iterator[tuple[str, str]]:
    """Runs of one unit in each frame, all units mixed, and boxes in boxes."""
    for unit in UNITS:
        run = unit * (length // len(unit))
        yield repr(unit), run
        yield from ((f"{lead!r} {unit!r} {end!r}", lead + run + end) for lead, end in FRAMES)
    mixed = "".join(UNITS) + "".join(reversed(UNITS))
    yield "mixed", mixed * (length // len(mixed))
    yield "boxes in boxes", "\\boxed{" * (length // 8) + "}" * (length // 8)
    yield "answers and spaces", ("answer is" + " " * (length // 100)) * 95


class Plain:
    """A tokenizer of characters, with a chat template that writes turn behind turn."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(
        self, turns: Sequence[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        return "".join(f"<{t['role']}>{t['content']}" for t in turns) + "<assistant>" * add_generation_prompt

    def __call__(self, text: str, **_: bool) -> dict[str, Any]:
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}


def family(kind: type[Any]) -> Any:
    """A family without a checkpoint."""
    found = object.__new__(kind)
    found.tokenizer, found.tag, found.columns = Plain(), 0, (ord("+"), ord("-"))
    return found


def grader_of_words() -> Any:
    """A grader without processes."""
    found = object.__new__(math_grader.MathGrader)
    found._require_boxed = found._require_thought = False
    return found


def segment(text: str) -> object:
    tokenizer = FakeTokenizer(thinks=False)
    by_text = Segmenter(tokenizer, Contains("\n\n\n"))
    assert by_text.text_mode
    return by_text.scan(by_text.start(), tokenizer.encode(text[: len(text) // 10]))  # one by one they take long


def stream(text: str) -> object:
    """As a server that shows no ids sends it, the stop token's text in it again and again and never the token."""

    class Joins(FakeTokenizer):
        def encode(self, text: str) -> tuple[int, ...]:
            return tuple(text.encode("utf-8", "replace"))

    reader, stops = Transcriber(Joins()), frozenset({259})
    return [reader.stopped(text[:end], 400, stops) for end in range(400, len(text), 400)]


READERS: dict[str, Callable[[str], object]] = {
    "choice-released": released_choice.letter,
    "exact": lambda text: exact_match(text, "Zürich"),
    "math": lambda text: plain.quantity(plain.latex(reading.final_expression(text) or "")),
    "math's references": lambda text: plain.key(answers.reference_of(text)),
    "the longest expressions": lambda text: plain.key(text[:4_000]),
    "math's words": lambda text: (math_grader._counted(text[:4_000]), grader_of_words()._says(text, "monday")),
    "thinking": answers.after_thinking,
    "unannounced thinking": spoken_thought,
    "what follows thoughts": behind_thoughts,
    "thoughts in an answer": lambda text: without_thoughts(text, "<think>", "</think>"),
    "a user's text": lambda text: UserText({"<|im_end|>"}, {"<think>"}).take_apart([{"role": "user", "content": text}]),
    "puzzle": lambda text: (puzzles.grade(text, PUZZLE), puzzles.expression(text)),
    "puzzle's steps": lambda text: first_error(PUZZLE, [text, "4 + 9 = 13 left " + text, "87 = " + text]),
    "a code fence": lambda text: programs.program(text, defines=("f",), reads=True),
    "a released code fence": programs.released_program,
    "a program's lines": lambda text: code._equal_lines(text, text + "1"),
    "a program's result": lambda text: code._equal_json(text, "1"),
    "boxes": answers.boxes,
    "the last box": answers.last_boxed,
    **{f"votes by {name}": extract for name, extract in EXTRACTS.items()},
    "reward": lambda text: well_formed(completions=[text]),
    "VersaPRM": lambda text: family(VersaPRM)._clean(text),
    "MathShepherd": lambda text: family(MathShepherd)._clean(text),
    "RLHFlow's turns": lambda text: family(RLHFlowPRM).encode("?", text.split("\n")[: len(text) // 10]),
    "steps": segment,
    "a stream of text": stream,
    "a server's spelling": lambda text: Transcriber(FakeTokenizer()).matches([32] * len(text), text),
    "a text's tokens": most_tokens,
    "terminal": lambda text: _one_line(text, 72),
    "GraphML": lambda text: _xml_attributes({"text": text}),
    "page": page._embed,
}


def limit(seconds: float) -> None:
    """From now on the kernel ends this process behind so much more processor time (SIGXCPU)."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), hard))


def taken(reader: Callable[[str], object], text: str) -> float:
    """The seconds of processor time that a text takes; under a limit the process' own clock counts ticks."""
    started = time.thread_time()
    reader(text)
    return time.thread_time() - started


def read_all(reader: Callable[[str], object], results: Connection) -> None:
    """In a fork: tells each text before it is read, and is ended at one that takes too long."""
    gc.disable()  # it walks through all that is loaded
    for (name, short), (_, long), (_, longer) in zip(texts(SHORT), texts(LONG), texts(FURTHER * LONG), strict=True):
        results.send(name)
        limit(20)
        least = [float("inf"), float("inf")]
        for _ in range(TRIES):
            least = [min(old, taken(reader, text)) for old, text in zip(least, (short, long), strict=True)]
            if least[1] <= MOST * max(least[0], FLOOR):
                break
        else:
            limit(1 + PROVED * least[1])
            reader(longer)


@pytest.mark.parametrize("name", READERS)
def test_time_grows_with_the_text_and_not_with_its_square(name: str) -> None:
    assert stuck_at(READERS[name]) is None


def test_a_reader_that_takes_the_square_is_found() -> None:
    assert stuck_at(lambda text: [text.casefold() for _ in range(len(text) // 10)]) is not None


def stuck_at(reader: Callable[[str], object]) -> str | None:
    """The text at which a reader was ended."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=read_all, args=(reader, theirs))
    process.start()
    theirs.close()
    at = "the first"
    with suppress(EOFError):
        while True:
            at = ours.recv()
    process.join()
    assert process.exitcode in (0, -signal.SIGXCPU)
    return None if process.exitcode == 0 else at


def test_every_module_with_patterns_is_tried_here() -> None:
    package = Path(tts_search.__file__).parent
    found = {
        str(file.relative_to(package).with_suffix(""))
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(alias.name in ("re", "regex", "late") for alias in node.names)
    } - {"grading/late"}
    tried = {
        *("embedded/puzzles", "paper/step_scores", "export/graphs", "scorers/process/language_models"),
        *("thinking", "generators/user_text", "generators/openai/watch", "selection/votes"),
        *(
            f"grading/{name}"
            for name in ("answers", "choice", "math", "places", "plain", "programs", "reading", "sentences", "units")
        ),
    }
    # They read questions, names of checkpoints, what a server refuses, our own ids and messages.
    others = {"training/cleaning", "cli/answer_file", "cli/wording", "generators/openai/dialect", "evaluation/warned"}
    others |= {"serving/refusals", "generators/openai/access", "confidential"}
    others |= {f"scorers/{name}" for name in ("outcome", "published", "process/families", "process/pooling")}
    assert found == tried | others
