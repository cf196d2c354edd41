"""Generative judges: what they are asked, where the verdict is read, and a random model that really writes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.scorers.reward_checkpoints import (
    CHATML,
    LLAMA3,
    QUESTION,
    STEPS,
    train_tokenizer,
    trajectory,
    write_language_model,
)
from tts_search import InvalidInputError, Scorer, ScorerError
from tts_search.scorers.checkpoint import load_tokenizer
from tts_search.scorers.judge import GenerativeJudge, GenPRM, ThinkPRM
from tts_search.scorers.writer import Writer
from tts_search.testing.conformance import ScorerConformance

WORDS = [" Yes", " No", "Yes", "No"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    special = ["<|head|>", "<|tail|>", "<|eot|>"]
    tokenizer = train_tokenizer(bos="<|begin|>", special=special, template=LLAMA3, words=WORDS)
    return write_language_model(
        tmp_path_factory.mktemp("judge") / "ThinkPRM-tiny", "llama", tokenizer, context_tokens=4096
    )


class Told(Writer):
    """Writes what it is told, one line after the other, and remembers what it was asked."""

    def __init__(self, lines: Sequence[str], likes: Callable[[str], float] = lambda _: 0.0) -> None:
        super().__init__(None, train_tokenizer(template=CHATML, words=WORDS, special=["<|im_start|>", "<|im_end|>"]))
        self.lines: Iterator[str] = iter(lines)
        self.likes = likes
        self.asked: list[str] = []
        self.judged: list[str] = []
        self.stops: list[Sequence[str]] = []

    def write(self, text: str, *, stops: Sequence[str] = (), **_: Any) -> str:
        self.asked.append(text)
        self.stops.append(stops)
        self.tokens += 100
        return next(self.lines)

    def preference(self, text: str, first: int, second: int) -> float:
        self.judged.append(text)
        assert [self.tokenizer.decode([i]).strip() for i in (first, second)] == ["Yes", "No"]
        return self.likes(text)


THINK = f"""<|im_start|>user
You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{QUESTION}

[Solution]

Step 1: {STEPS[0]}
Step 2: {STEPS[1]}
Step 3: {STEPS[2]}

Review and critique each step in the proposed solution to determine whether each step is correct. If the solution is \
incomplete, only verify the provided steps
<|im_end|>
<|im_start|>assistant

Let's verify step by step:"""


def test_think_prm_asks_once_for_the_whole() -> None:
    writer = Told([" All fine.\n</think>\nIs the solution correct?"], likes=lambda _: 2.0)
    judge = ThinkPRM(writer, name="told")
    assert judge.aggregation == "last"
    found = judge.score([trajectory(), trajectory([])])
    value = torch.sigmoid(torch.tensor(2.0)).item()  # of the softmax over the logits of Yes and No
    assert found == [[pytest.approx(value)] * 3, []]
    assert found.tokens == 100
    assert writer.asked == [THINK]
    assert writer.judged == [f"{THINK} All fine.\n</think>\nIs the solution correct?"]
    assert judge.score([trajectory()]).tokens == 0, "what was judged is remembered"


def test_a_critique_that_was_cut_off_is_asked_all_the_same() -> None:
    writer = Told([" Hm, step 2\n"])
    ThinkPRM(writer, name="told").score([trajectory()])
    assert writer.judged == [f"{THINK} Hm, step 2\nIs the solution correct?"]


def test_votes_are_averaged() -> None:
    likes = {"a": 2.0, "b": -1.0, "c": 0.0}
    writer = Told([" a", " b", " c"], likes=lambda text: likes[text.split("\nIs the")[0][-1]])
    ((value, *_),) = ThinkPRM(writer, name="told", votes=3, temperature=0.6).score([trajectory()])
    assert value == pytest.approx(sum(torch.sigmoid(torch.tensor(x)).item() for x in likes.values()) / 3)


def gen_prompt(*turns: tuple[str, str]) -> str:
    system = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
    parts = [("system", system), *turns]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in parts).removesuffix("\n")


def test_think_prm_is_stopped_in_front_of_a_step_that_is_not_there() -> None:
    writer = Told([" Step 2: fine.\n\nStep 3:", " All fine."])
    ThinkPRM(writer, name="told").score([trajectory(STEPS[:2]), trajectory(STEPS[:1])])
    assert [stops[-1] for stops in writer.stops] == ["Step 3:", "Step 2:"]
    assert writer.judged[0].endswith("verify step by step: Step 2: fine.\nIs the solution correct?")
    assert writer.judged[1].endswith("verify step by step: All fine.\nIs the solution correct?")


@pytest.mark.parametrize(("likes", "word"), [(3.0, "Yes"), (-3.0, "No")])
def test_gen_prm_judges_every_step_behind_its_earlier_outputs(likes: float, word: str) -> None:
    writer = Told(
        ["one\n</analyze>\n", "two\n</analyze>\n"],
        likes=lambda t: likes if "Paragraph 1" in t.rpartition("<analyze>")[2] else -likes,
    )
    judge = GenPRM(writer, name="told")
    (found,) = judge.score([trajectory(STEPS[:2])])
    right, wrong = pytest.approx(0.9525741), pytest.approx(0.0474259)
    assert found == ([right, wrong] if likes > 0 else [wrong, right])
    opening = "<analyze>\nLet's analyze the Paragraph {} step by step: "
    verdict = "<output>\n**Judgement**: $\\boxed{"
    first = ("user", f"Question: {QUESTION}\n\n{STEPS[0]}")
    critique = opening.format(1) + "one\n</analyze>\n" + verdict
    output = critique + word + "}$\n</output>\n"  # the whole of it, as their evaluation keeps it
    second = gen_prompt(first, ("assistant", output), ("user", STEPS[1]))
    assert writer.asked == [gen_prompt(first) + opening.format(1), second + opening.format(2)]
    assert writer.judged[0] == gen_prompt(first) + critique
    assert writer.judged[1] == second + opening.format(2) + "two\n</analyze>\n" + verdict
    assert judge.score([trajectory(STEPS[:1])]).tokens == 0


def test_gen_prm_runs_code_where_it_is_given_a_sandbox() -> None:
    code: list[str] = []

    def execute(source: str) -> str:
        code.append(source)
        return "22"

    writer = Told(["sum\n</analyze>\n", "print(13 + 9)\n```\n", "Right.\n</verify>\n"])
    judge = GenPRM(writer, name="told")
    judge.execute = execute
    judge.score([trajectory(STEPS[:1])])
    assert code == ["print(13 + 9)"]
    assert writer.asked[2].endswith("```python\nprint(13 + 9)\n```\n[Code Output]\n\n```\n22\n```\n")
    assert writer.judged[0].endswith("Right.\n</verify>\n<output>\n**Judgement**: $\\boxed{")


def test_the_verdict_of_a_real_model(folder: Path) -> None:
    judge = ThinkPRM.from_pretrained(folder, dtype="float32", device="cpu", max_tokens=12)
    ((value, *_),) = judge.score([trajectory(STEPS[:1])])
    tokenizer = load_tokenizer(folder)
    model: Any = LlamaForCausalLM.from_pretrained(folder).eval()
    text = judge.prompt(QUESTION, STEPS[:1], [])
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    assert ids[0, 0] == tokenizer.bos_token_id
    written = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    critique = tokenizer.decode(written, skip_special_tokens=True).rstrip()
    asked = tokenizer.encode(f"{text}{critique}\nIs the solution correct?", add_special_tokens=False)
    with torch.no_grad():
        row = model(torch.tensor([asked])).logits[0, -1]
    yes, no = (tokenizer.encode(word, add_special_tokens=False) for word in (" Yes", " No"))
    assert len(yes) == len(no) == 1
    assert value == pytest.approx(torch.stack([row[yes[0]], row[no[0]]]).softmax(0)[0].item(), abs=1e-5)


def test_writing_ends_with_a_stop_and_repeats_with_a_seed(folder: Path) -> None:
    writer = Writer.from_pretrained(folder, dtype="float32", device="cpu")
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 1.0}
    free = writer.write("<|begin|>Add", stops=(), seed=1, **options)
    stop = free[len(free) // 2 : len(free) // 2 + 2]
    cut = writer.write("<|begin|>Add", stops=[stop], seed=1, **options)
    assert cut == free[: free.index(stop) + len(stop)]
    assert writer.write("<|begin|>Add", stops=(), seed=1, **options) == free
    assert writer.write("<|begin|>Add", stops=(), seed=2, **options) != free
    with pytest.raises(ScorerError, match=r"tokens long, and its context holds 4096"):
        writer.write("a b c " * 2000, stops=(), seed=1, **options)


@pytest.mark.parametrize("kind", [ThinkPRM, GenPRM])
def test_a_judge_reads_as_far_as_its_context_goes(kind: type[GenerativeJudge], folder: Path) -> None:
    judge = kind.from_pretrained(folder, dtype="float32", device="cpu", max_tokens=6)
    steps = [f"Take {i}, add {'x y ' * 150}and go on." for i in range(12)]
    found = judge.score([trajectory(steps), trajectory(STEPS[:1])])
    read = len(found[0])
    assert 1 < read < len(steps)
    assert found.unread is not None
    assert "reads 4,096 tokens" in found.unread
    assert len(found[1]) == 1
    assert judge.score([trajectory(steps[:read])])[0] == found[0]
    assert judge.score([trajectory(steps)]).tokens == 0, "what was judged is remembered"
    lost = judge.score([trajectory(STEPS[:1], "x y " * 3000)])
    assert lost == [[]]
    assert lost.unread is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"votes": 0}, "votes >= 1"),
        ({"votes": 3}, "3 votes at temperature 0 are all the same"),
        ({"temperature": -1}, "temperature >= 0"),
        ({"max_tokens": 0}, "max_tokens >= 1"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        ThinkPRM(Told([]), name="told", **options)


def test_a_judge_of_ones_own() -> None:
    class Terse(GenerativeJudge):
        lead = "Right?"
        yes, no = " Yes", " No"

        def prompt(self, question: str, steps: Sequence[str], critiques: Sequence[str]) -> str:
            return f"{question} {steps[-1]}"

        def critique(self, prompt: str, step: int, seed: int) -> str:
            return "Right?"

    writer = Told([], likes=lambda text: float(text == f"{QUESTION} {STEPS[-1]}Right?"))
    ((value, *_),) = Terse(writer, name="told").score([trajectory()])
    assert value == pytest.approx(0.7310586)
    with pytest.raises(InvalidInputError, match=r"makes \d of 'Certainly'"):
        type("Wordy", (Terse,), {"yes": "Certainly"})(writer, name="told")


class JudgeConformance(ScorerConformance):
    tolerance = 1e-5
    kind: type[GenerativeJudge] = ThinkPRM

    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def make_scorer(self) -> Scorer:
        return self.kind.from_pretrained(self.folder, dtype="float32", device="cpu", max_tokens=6)


class TestThinkPRM(JudgeConformance):
    kind = ThinkPRM


class TestGenPRM(JudgeConformance):
    kind = GenPRM
