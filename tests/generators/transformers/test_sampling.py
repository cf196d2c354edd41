"""Drawing tokens: what top-k and top-p keep, and what a draw depends on."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts_search.core.protocols import Sampling
from tts_search.generators.transformers import sampling
from tts_search.generators.transformers.sampling import Draws, draw

SETTINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 50, 10**6]),
)
ROWS = st.lists(st.tuples(SETTINGS, st.floats(0, 1, exclude_max=True), st.integers(0, 999)), min_size=1, max_size=5)


def logits_of(seed: int, vocabulary: int = 64) -> torch.Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def one(logits: torch.Tensor, how: Sampling, uniform: float) -> tuple[int, float]:
    draws = Draws.of([how], logits.shape[-1], logits.device)
    token, logprob = draw(logits[None], draws, torch.tensor([[uniform]]))
    return int(token), float(logprob)


def kept(logits: torch.Tensor, how: Sampling) -> set[int]:
    """The plain definition: the k likeliest, and of those the fewest that hold the share p of their mass."""
    if how.temperature == 0:
        return {int(logits.argmax())}
    probs = torch.softmax(logits.double() / how.temperature, -1)
    order = probs.argsort(descending=True).tolist()[: how.top_k or None]
    whole = sum(probs[i].item() for i in order)
    chosen, mass = set[int](), 0.0
    for i in order:
        if how.top_p < 1 and mass >= how.top_p * whole - 1e-6:
            break
        chosen.add(i)
        mass += probs[i].item()
    return chosen


@given(ROWS)
def test_a_row_is_drawn_as_if_alone_and_out_of_what_is_kept(rows: list[tuple[Sampling, float, int]]) -> None:
    logits = torch.stack([logits_of(seed) for _, _, seed in rows])
    draws = Draws.of([how for how, _, _ in rows], 64, logits.device)
    tokens, logprobs = draw(logits, draws, torch.tensor([[uniform] for _, uniform, _ in rows]))
    for i, (how, uniform, _) in enumerate(rows):
        token = int(tokens[i])
        assert (token, float(logprobs[i])) == pytest.approx(one(logits[i], how, uniform))
        assert token in kept(logits[i], how)
        assert float(logprobs[i]) == pytest.approx(float(logits[i].log_softmax(-1)[token]), abs=1e-5)


@given(SETTINGS, st.integers(0, 999))
def test_the_whole_unit_interval_reaches_all_that_is_kept(how: Sampling, seed: int) -> None:
    logits = logits_of(seed, 8)
    grid = torch.linspace(0, 1 - 2**-24, 4001)[:, None]
    tokens, _ = draw(logits.expand(len(grid), -1), Draws.of([how] * len(grid), 8, logits.device), grid)
    seen, allowed = set(tokens.tolist()), kept(logits, how)
    assert seen <= allowed
    probs = torch.softmax(logits / (how.temperature or 1.0), -1)
    assert {i for i in allowed if probs[i] > 1e-3} <= seen


@pytest.mark.parametrize("how", [Sampling(1.0, 0.9), Sampling(1.0, 0.999), Sampling(5.0, 0.99), Sampling(5.0, 1.0, 30)])
def test_the_short_cut_changes_nothing(how: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.stack([logits_of(seed, 3000) for seed in range(20)])
    draws = Draws.of([how] * 20, 3000, logits.device)
    uniforms = torch.rand(20, 1, generator=torch.Generator().manual_seed(0))
    expected = draw(logits, draws, uniforms)
    for width in (8, 10**6):
        monkeypatch.setattr(sampling, "_LIKELY", width)
        assert all(torch.equal(a, b) for a, b in zip(draw(logits, draws, uniforms), expected, strict=True))


@pytest.mark.parametrize("how", [Sampling(0.0), Sampling(1.0, 0.9), Sampling(1.0, 1.0)])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_logits_show(how: Sampling, broken: Any) -> None:
    logits = logits_of(0)
    logits[3] = broken
    assert not torch.isfinite(torch.tensor(one(logits, how, 0.5)[1]))
    logits[3] = -float("inf")
    assert torch.isfinite(torch.tensor(one(logits, how, 0.5)[1]))
