"""How a score travels: through hidden states of any type, the columns behind the vocabulary, and a log-softmax."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("vllm")

from tts_search.generators.vllm.architectures import append_columns, carry, uncarry
from tts_search.generators.vllm.plugin import CLAMPED, SCORE_LIMIT, read_score, score_columns, widened

SCORES = torch.tensor([0.0, 1e-4, -0.5, 3.25, -17.1234567, 63.9, -250.0, 4000.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hidden_states_carry_every_bit_of_a_score(dtype: torch.dtype) -> None:
    hidden = torch.randn(len(SCORES) + 1, 64).to(dtype)
    scores = torch.cat((SCORES, torch.tensor([math.nan])))
    carried = carry(hidden, scores)
    assert carried.dtype is dtype
    assert (carried.shape[1] * carried.element_size()) % 16 == 0  # rows stay aligned
    chosen = torch.tensor([3, 0, 8, 1])  # as an engine picks the rows to sample
    back, score = uncarry(carried[chosen], 64)
    assert torch.equal(back, hidden[chosen])
    assert torch.equal(score.view(torch.int32), scores[chosen].view(torch.int32))  # bits, for the NaN among them


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_scores_come_back_and_the_policy_does_not_notice(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(len(SCORES), 500) * scale).to(dtype)
    out = append_columns(logits, SCORES, widened(500)).log_softmax(-1, dtype=torch.float32)
    high, low = score_columns(500)
    for row, score in enumerate(SCORES.tolist()):
        columns = out[row, high].item(), out[row, low].item()
        assert min(columns) > CLAMPED
        expected = min(max(score, -SCORE_LIMIT), SCORE_LIMIT)
        assert read_score(*columns) == pytest.approx(expected, rel=1e-6, abs=2e-6)
    assert torch.equal(out[:, :500], logits.log_softmax(-1, dtype=torch.float32))


@pytest.mark.parametrize("temperature", [1e-2, 1.0, 9.0])
def test_score_columns_are_never_sampled(temperature: float) -> None:
    out = append_columns(torch.zeros(len(SCORES), 500), SCORES, widened(500)) / temperature
    assert out.softmax(-1)[:, 500:].sum() == 0.0
    assert int(out.argmax(-1).max()) < 500


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_comes_back_as_nan_and_spoils_no_token(score: float) -> None:
    logits = torch.randn(2, 500)
    out = append_columns(logits, torch.tensor([score, 1.0]), widened(500)).log_softmax(-1)
    high, low = score_columns(500)
    assert math.isnan(read_score(out[0, high].item(), out[0, low].item()))
    assert read_score(out[1, high].item(), out[1, low].item()) == pytest.approx(1.0)
    assert torch.equal(out[:, :500], logits.log_softmax(-1))


@pytest.mark.parametrize("vocabulary", [49_152, 151_936, 510, 511, 512])
def test_the_widened_vocabulary_holds_both_columns_and_stays_aligned(vocabulary: int) -> None:
    assert score_columns(vocabulary)[-1] < widened(vocabulary) <= vocabulary + 65
    assert widened(vocabulary) % 64 == 0
