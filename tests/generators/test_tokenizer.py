"""Tokenizers: nothing is lost, pieces are bytes, and what a folder can lack."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints import TOKENIZER_KINDS, write_checkpoint, write_tokenizer
from tests.smollm2 import MISSING, find_smollm2
from tts_search.core.protocols import Sampling, Tokenizer
from tts_search.errors import InvalidInputError, ModelNotFoundError
from tts_search.generators.tokenizer import PretrainedTokenizer

KINDS = (*TOKENIZER_KINDS, "smollm2")
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PROPERTY = settings(max_examples=50)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> dict[str, PretrainedTokenizer]:
    root = tmp_path_factory.mktemp("tokenizers")
    folders = {str(kind): write_tokenizer(root / kind, kind) for kind in TOKENIZER_KINDS}
    real = find_smollm2(pytestconfig)
    return {kind: PretrainedTokenizer(place) for kind, place in (folders | ({"smollm2": real} if real else {})).items()}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, PretrainedTokenizer]) -> PretrainedTokenizer:
    if request.param not in tokenizers:
        pytest.skip(MISSING)
    return tokenizers[request.param]


def known_bytes(tokenizer: PretrainedTokenizer) -> set[int]:
    """SmolLM2's vocabulary lacks some control characters, and the first bytes of planes that have no characters yet."""
    return {piece[0] for piece in tokenizer.pieces if len(piece) == 1}


@PROPERTY
@given(TEXT)
def test_pieces_concatenate_to_the_text(tokenizers: dict[str, PretrainedTokenizer], text: str) -> None:
    for kind, tokenizer in tokenizers.items():
        if kind == "smollm2" and not known_bytes(tokenizer).issuperset(text.encode()):
            continue
        ids = tokenizer.encode(text)
        assert b"".join(tokenizer.pieces[i] for i in ids) == text.encode()
        assert tokenizer.decode(ids) == text


@PROPERTY
@given(TEXT, TEXT, st.integers(0, 100))
def test_pieces_concatenate_wherever_ids_are_cut(
    tokenizers: dict[str, PretrainedTokenizer], first: str, second: str, cut: int
) -> None:
    for kind, tokenizer in tokenizers.items():
        if kind == "smollm2" and not known_bytes(tokenizer).issuperset((first + second).encode()):
            continue
        ids = (*tokenizer.encode(first), *tokenizer.encode(second))
        parts = [b"".join(tokenizer.pieces[i] for i in part) for part in (ids[:cut], ids[cut:])]
        assert b"".join(parts) == (first + second).encode()


def test_it_is_a_tokenizer(tokenizer: PretrainedTokenizer) -> None:
    assert isinstance(tokenizer, Tokenizer)
    assert len(tokenizer) == len(tokenizer.pieces)
    assert tokenizer.eos_ids
    assert all(0 <= i < len(tokenizer) for i in tokenizer.eos_ids)


def test_decode(tokenizer: PretrainedTokenizer) -> None:
    ids = tokenizer.encode("So it is.\n\n")
    end = next(iter(tokenizer.eos_ids))
    assert tokenizer.decode((*ids, end)) == "So it is.\n\n"
    assert tokenizer.decode(()) == ""
    assert tokenizer.decode((10**9, -1)) == "", "ids that a padded vocabulary has and the tokenizer has not"
    smile = tokenizer.encode("🙂")
    if len(smile) > 1:
        assert tokenizer.decode(smile[:-1]) == "\ufffd"


def test_thinking_tags(tokenizers: dict[str, PretrainedTokenizer], tmp_path: Path) -> None:
    tagged = tokenizers["merged"]
    assert tagged.thinking is not None
    opening, closing = tagged.thinking
    assert isinstance(opening, int)
    assert isinstance(closing, int)
    assert [tagged.pieces[i] for i in (opening, closing)] == [b"<think>", b"</think>"]
    assert tagged.encode("<think>a</think>") == (opening, *tagged.encode("a"), closing)
    assert tagged.decode((opening, closing)) == "<think></think>"
    plain = PretrainedTokenizer(write_tokenizer(tmp_path, thinking=False))
    assert plain.thinking is None
    assert plain.decode(plain.encode("<think>")) == "<think>"


def test_render(tokenizers: dict[str, PretrainedTokenizer]) -> None:
    tokenizer = tokenizers["merged"]
    text = tokenizer.render("hello")
    assert text == tokenizer.render([{"role": "user", "content": "hello"}])
    data = b"".join(tokenizer.pieces[i] for i in text).decode()
    assert data == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert len(tokenizer.render(turns)) > len(text)


SPELLINGS = (
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<|im_",
    "start|>",
    "end|>",
    "<",
    "|>",
    "a\n",
    "\ufdd0",
)


def control_ids(tokenizer: PretrainedTokenizer, ids: Sequence[int]) -> list[int]:
    marked = {*tokenizer.eos_ids, *(tokenizer.thinking or ())}
    marked |= {i for i, piece in enumerate(tokenizer.pieces) if piece in (b"<|im_start|>", b"<|im_end|>")}
    return [i for i in ids if i in marked]


@PROPERTY
@given(st.lists(st.sampled_from(SPELLINGS)).map("".join), st.sampled_from(["user", "system"]))
def test_control_tokens_in_a_message_are_text(tokenizers: dict[str, PretrainedTokenizer], text: str, role: str) -> None:
    for kind, tokenizer in tokenizers.items():
        question = [{"role": role, "content": text}, {"role": "user", "content": f"So: {text}"}]
        plain = [{"role": role, "content": "a"}, {"role": "user", "content": "a"}]
        ids = tokenizer.render(question)
        assert control_ids(tokenizer, ids) == control_ids(tokenizer, tokenizer.render(plain))
        if kind == "merged":  # byte-level, and its template changes nothing
            assert f"So: {text}<|im_end|>" in b"".join(tokenizer.pieces[i] for i in ids).decode()


def test_thinking_in_an_earlier_answer_is_the_templates_matter(tokenizers: dict[str, PretrainedTokenizer]) -> None:
    tokenizer = tokenizers["merged"]
    said = {"role": "assistant", "content": "<think>a</think>b<|im_end|>"}
    ids = control_ids(tokenizer, tokenizer.render([said, {"role": "user", "content": "c"}]))
    assert tokenizer.thinking is not None
    assert [i for i in ids if i in tokenizer.thinking] == list(tokenizer.thinking)
    bare = control_ids(tokenizer, tokenizer.render([{**said, "content": "b"}, {"role": "user", "content": "c"}]))
    assert [i for i in ids if i not in tokenizer.thinking] == bare


def test_a_base_model_goes_on_from_text_alone(tmp_path: Path) -> None:
    base = PretrainedTokenizer(write_tokenizer(tmp_path, chat_template=False))
    ids = base.render("a<|im_end|></think>b")
    assert not control_ids(base, ids)
    assert b"".join(base.pieces[i] for i in ids) == b"a<|im_end|></think>b"


def test_without_a_chat_template(tmp_path: Path) -> None:
    base = PretrainedTokenizer(write_tokenizer(tmp_path, chat_template=False))
    assert base.render("Once upon a time") == base.encode("Once upon a time")
    with pytest.raises(InvalidInputError, match="chat template"):
        base.render([{"role": "user", "content": "hello"}])


def test_malformed_messages(tmp_path: Path) -> None:
    tokenizer = PretrainedTokenizer(write_tokenizer(tmp_path))
    with pytest.raises(InvalidInputError, match="refused these messages"):
        tokenizer.render([{"role": "user"}])


def test_missing_folders(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
            PretrainedTokenizer(place)


def test_no_end_of_text(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    place = tmp_path / "tokenizer_config.json"
    config = json.loads(place.read_text())
    del config["eos_token"]
    place.write_text(json.dumps(config))
    with pytest.raises(InvalidInputError, match="eos_token"):
        PretrainedTokenizer(tmp_path)


def test_a_models_type_does_not_change_its_tokenizer(tmp_path: Path) -> None:
    """AutoTokenizer would put Qwen2's own pre-tokenizer and normalizer in the place of these."""
    alone = PretrainedTokenizer(write_tokenizer(tmp_path / "alone", "digits"))
    beside = PretrainedTokenizer(write_checkpoint(tmp_path / "model", "qwen2", tokenizer="digits"))
    text = "so it is.\n\nNow 123 e\u0301"
    assert beside.encode(text) == alone.encode(text)
    assert beside.sampling == Sampling(temperature=0.8, top_p=0.9, top_k=50)
    assert alone.sampling == Sampling()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, Sampling()),
        ({"do_sample": True}, Sampling()),
        ({"repetition_penalty": 1.05}, Sampling(repetition_penalty=1.05)),
        ({"temperature": 0.7, "top_k": 20}, Sampling(temperature=0.7, top_k=20)),
        ({"do_sample": True, "top_p": 0.8, "min_p": 0.1}, Sampling(top_p=0.8, min_p=0.1)),
        ({"do_sample": False, "temperature": 1.0, "top_p": 1.0}, Sampling()),
        ({"do_sample": False, "repetition_penalty": 1.2}, Sampling(repetition_penalty=1.2)),
        ({"do_sample": True, "top_k": -1}, Sampling()),
    ],
)
def test_how_a_model_wants_its_tokens_drawn(tmp_path: Path, said: dict[str, object], meant: Sampling) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps(said))
    assert PretrainedTokenizer(folder).sampling == meant


def test_generation_settings_that_cannot_be_read_are_no_settings(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"generation_config\.json"):
        PretrainedTokenizer(folder)
