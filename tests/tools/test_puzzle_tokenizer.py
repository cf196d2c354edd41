"""The tokenizer loses nothing, and gives what the method needs one token each."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tools.embedded.graded_samples import step_tokens
from tools.embedded.policy import draw_batch, encode, loss_of, new_policy, render
from tools.embedded.puzzle_tokenizer import END, SPARE_IDS, STEP, padded_vocabulary, train_tokenizer
from tools.embedded.traces import corpus, messages, think
from tts_search.embedded.puzzles import LARGEST_RESULT, draw


def make() -> PreTrainedTokenizerFast:
    return train_tokenizer(corpus(), largest_number=LARGEST_RESULT)


TOKENIZER = make()


@given(st.text())
@settings(max_examples=300)
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


@pytest.mark.parametrize("text", ["<think>", "a<|im_end|> b", "  two  spaces\n\n\n", "naïve 🙂 数", "\r\n\t", "12345"])
def test_awkward_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_one_token_each() -> None:
    for text in (*map(str, range(LARGEST_RESULT + 1)), ".\n\n", "<think>", "</think>", END, " yes", " no", "?"):
        assert len(TOKENIZER(text)["input_ids"]) == 1, text


def test_the_step_token_is_one_token_in_running_text() -> None:
    (step,) = TOKENIZER(".\n\n")["input_ids"]
    assert TOKENIZER("13 - 4 = 9 left 6, 9, 9.\n\n9 * 9 = 81 left 6, 81.\n\n")["input_ids"].count(step) == 2


def test_special_tokens() -> None:
    assert TOKENIZER.eos_token == END
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id
    ids = TOKENIZER(f"<think>5</think>{END}")["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>5</think>"


def test_a_number_after_a_word_or_an_operation_costs_no_token_for_the_space() -> None:
    assert len(TOKENIZER("13 - 4 = 9 left 6, 9, 9.\n\n")["input_ids"]) == 12


@pytest.mark.parametrize("loader", [AutoTokenizer, PreTrainedTokenizerFast])
def test_saved_beside_a_qwen2_model_it_stays_what_it_is(loader: Any, tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    new_policy(TOKENIZER, width=32, blocks=2).config.save_pretrained(tmp_path)
    text = "Using the numbers 14, 6, 19 and 13, make 87.\n\nnaïve  e\u0301"
    assert loader.from_pretrained(tmp_path)(text)["input_ids"] == TOKENIZER(text)["input_ids"]


def test_training_is_repeatable() -> None:
    assert make().backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_the_vocabulary_leaves_ids_to_spare() -> None:
    assert padded_vocabulary(TOKENIZER) >= len(TOKENIZER) + SPARE_IDS
    assert max(TOKENIZER.get_vocab().values()) == len(TOKENIZER) - 1


def test_the_prompt_opens_the_thinking_part() -> None:
    chat = [{"role": "user", "content": "Make 5 from 1, 2, 3 and 1."}]
    prompt = render(TOKENIZER, chat)
    assert prompt == f"<|im_start|>user\n{chat[0]['content']}{END}\n<|im_start|>assistant\n<think>\n"
    ids = TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ids == TOKENIZER(prompt)["input_ids"]


@given(st.integers(0, 2**32))
def test_spans_end_where_tokens_end(seed: int) -> None:
    rng = random.Random(seed)
    puzzle = draw(rng)
    prompt, trace = render(TOKENIZER, messages(puzzle, rng)), think(puzzle, rng, astray=0.5)
    ids, learned, steps = encode(TOKENIZER, prompt, trace.spans)
    assert ids == TOKENIZER(prompt + trace.text + END)["input_ids"]
    at = len(TOKENIZER(prompt)["input_ids"])
    for span in trace.spans:
        part = TOKENIZER(span.text)["input_ids"]
        wanted = {(place, token): share for place, token, share in learned if at <= place < at + len(part)}
        if span.wanted is None:
            assert wanted == {(at + i, token): 1.0 for i, token in enumerate(part)}
        else:
            assert len(part) == 1
            assert wanted == {(at, TOKENIZER(text)["input_ids"][0]): share for text, share in span.wanted.items()}
        at += len(part)
    assert learned[-1] == (at, TOKENIZER.eos_token_id, 1.0)
    assert [TOKENIZER.decode([ids[place]]) for place, _ in steps] == [STEP] * 4
    assert steps[-1][1] == ("? yes" in trace.text)
    assert [in_reach for _, in_reach in steps] == sorted((in_reach for _, in_reach in steps), reverse=True), (
        "lost is lost"
    )


@given(st.integers(0, 2**32))
def test_a_batch_holds_what_its_traces_want(seed: int) -> None:
    batch = draw_batch(TOKENIZER, random.Random(seed), 4)
    total = torch.zeros(batch.ids.shape).index_put((batch.row, batch.place), batch.share, accumulate=True)
    assert bool(((total - 1).abs().lt(1e-5) | total.eq(0)).all()), "shares of a place sum to 1"
    right = total[::2].bool()
    assert bool(right.any(dim=1).all())
    assert set(batch.in_reach[batch.step_row % 2 == 0].tolist()) == {1.0}, "right traces keep the target in reach"
    losses = loss_of(new_policy(TOKENIZER, width=32, blocks=2), torch.nn.Linear(32, 1), batch)
    assert all(loss.isfinite() for loss in losses)


def test_step_tokens_follow_the_rules() -> None:
    (step,) = TOKENIZER(".\n\n")["input_ids"]
    (close,) = TOKENIZER("</think>")["input_ids"]
    assert step_tokens(TOKENIZER, [step, 5, step, step, 6, step, close, 7, step]) == [2, 5]
    assert step_tokens(TOKENIZER, []) == []
