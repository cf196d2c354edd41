"""Files read without transformers are what transformers makes of them; where they say more, it reads them itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.checkpoints import TOKENIZER_KINDS, write_tokenizer
from tests.smollm2 import MISSING, find_smollm2
from tts_search.embedded import MODEL_FOLDER
from tts_search.errors import ModelNotFoundError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.generators.tokenizer_files import PlainTokenizer, read_plain

TEMPLATE = """{%- if messages[0].role == 'system' %}
    {{- bos_token }}{{ messages[0].content | trim }}
{%- endif %}
{%- for message in messages %}
    {% if message.role == 'odd' %}{{ raise_exception('no odd roles') }}{% endif %}
    {%- if loop.index > 9 %}{% break %}{% endif -%}
    {{ '<|im_start|>' + message.role + '\\n' + message.content + eos_token + '\\n' }}
    {%- generation %}{% set inside = 1 %}{% endgeneration %}
{%- endfor %}
{{- [inside is defined, tools, documents, 'é<', {'b': 1, 'a': [2]}] | tojson(indent=1) }} {{ strftime_now('%Y') }}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hallo\n\nyou <|im_end|> é 🙂"}],
    [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": ""},
    ],
    [{"role": "user", "content": str(n)} for n in range(12)],
]
AS_WRITTEN = "as written"


def told(folder: Path, **entries: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def file(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def entry(text: str, **flags: bool) -> dict[str, Any]:
    return {"content": text, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False} | flags


def added(folder: Path) -> dict[str, Any]:
    """The `added_tokens_decoder` that fits the folder."""
    tokens: list[dict[str, Any]] = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return {str(token.pop("id")): token for token in tokens}


def processed(folder: Path) -> None:
    path = folder / "tokenizer.json"
    read = json.loads(path.read_text())
    start = next(token["id"] for token in read["added_tokens"] if token["content"] == "<|im_start|>")
    read["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [start], "tokens": ["<|im_start|>"]}},
    }
    read["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    read["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|im_start|>",
    }  # fmt: skip
    path.write_text(json.dumps(read))


PLAIN: dict[str, Callable[[Path], object]] = {
    AS_WRITTEN: lambda folder: None,
    "another template": lambda folder: file(folder, "chat_template.jinja", TEMPLATE),
    "a template in the config": lambda folder: (
        (folder / "chat_template.jinja").unlink(),
        told(folder, chat_template=TEMPLATE, bos_token="<|im_start|>"),
    ),
    "a base model": lambda folder: (folder / "chat_template.jinja").unlink(),
    "a base model's first token": lambda folder: ((folder / "chat_template.jinja").unlink(), processed(folder)),
    "a broken template": lambda folder: file(folder, "chat_template.jinja", "{% if %}"),
    "tokens once more": lambda folder: told(
        folder, added_tokens_decoder=added(folder), eos_token={"__type": "AddedToken"} | entry("<|im_end|>")
    ),
    "names of tokens in a file": lambda folder: (
        told(folder, eos_token="<|im_start|>"),
        file(folder, "special_tokens_map.json", {"eos_token": entry("<|im_end|>"), "pad_token": "<|im_end|>"}),
        file(folder, "chat_template.jinja", TEMPLATE + "{{ pad_token }}"),
    ),
    "names of tokens in a file that does not count": lambda folder: (
        told(folder, added_tokens_decoder=added(folder)),
        file(folder, "special_tokens_map.json", {"eos_token": "<|im_start|>"}),
    ),
    "a token of the start that is not added": lambda folder: told(folder, add_bos_token=True, bos_token="<|im_end|>"),
    "extra tokens that are there": lambda folder: told(folder, additional_special_tokens=["<|im_start|>"]),
}
NOT_PLAIN: dict[str, Callable[[Path], object]] = {
    "a token to add": lambda folder: told(folder, added_tokens_decoder=added(folder) | {"9000": entry("<new>")}),
    "a token to change": lambda folder: told(
        folder, added_tokens_decoder=dict.fromkeys(list(added(folder))[:1], entry("<|im_start|>", lstrip=True))
    ),
    "a token to add by name": lambda folder: told(folder, bos_token="<new>"),
    "an extra token to add": lambda folder: told(folder, extra_special_tokens=["<new>"]),
    "a token with a name of the model's": lambda folder: told(folder, image_token="<|im_start|>"),
    "extra tokens with names": lambda folder: told(folder, extra_special_tokens={"image_token": "<|im_start|>"}),
    "a token to add in a file": lambda folder: file(folder, "added_tokens.json", {"<new>": 9000}),
    "special tokens in pieces": lambda folder: told(folder, split_special_tokens=True),
    "what is not known here": lambda folder: told(folder, do_lower_case=True),
    "two templates": lambda folder: (
        (folder / "chat_template.jinja").unlink(),
        told(folder, chat_template=[{"name": "default", "template": TEMPLATE}, {"name": "tools", "template": "t"}]),
    ),
    "two files of templates": lambda folder: (
        (folder / "additional_chat_templates").mkdir(),
        file(folder, "additional_chat_templates/tools.jinja", "t"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "model")


def outcome(call: Callable[[], object]) -> object:
    """What came of it; of a refusal, that it was one: its words are of two libraries."""
    try:
        return call()
    except Exception:
        return "refused"


def core(tokenizer: Any) -> dict[str, Any]:
    """How texts become ids; how many ids is said anew in each call."""
    read: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: value for name, value in read.items() if name not in ("truncation", "padding")}


def alike(plain: Any, theirs: Any, folder: Path) -> None:
    assert plain.get_vocab() == theirs.get_vocab()
    assert plain.eos_token_id == theirs.eos_token_id
    assert plain.chat_template == theirs.chat_template
    assert core(plain) == core(theirs)
    assert {i: repr(t) for i, t in plain.added_tokens_decoder.items()} == {
        i: repr(t) for i, t in theirs.added_tokens_decoder.items()
    }
    for chat in [*CHATS, [{"role": "odd", "content": ""}], []]:
        options = {"tokenize": False, "add_generation_prompt": True}
        ours = outcome(lambda: plain.apply_chat_template(chat, **options))  # noqa: B023
        assert ours == outcome(lambda: theirs.apply_chat_template(chat, **options)), folder  # noqa: B023
    for text in ("", " a  b\n\n", "<|im_start|>x<|im_end|>", "é🙂\x00你好", "word " * 80):
        for special in (False, True):
            ids = theirs.encode(text, add_special_tokens=special)
            assert plain.encode(text, add_special_tokens=special) == ids
            spaces = {"clean_up_tokenization_spaces": False}
            assert plain.decode(ids, **spaces) == theirs.decode(ids, **spaces)


@pytest.mark.parametrize("change", PLAIN)
def test_plain_files_are_read_as_transformers_reads_them(folder: Path, change: str) -> None:
    PLAIN[change](folder)
    plain = read_plain(folder)
    assert isinstance(plain, PlainTokenizer)
    alike(plain, PreTrainedTokenizerFast.from_pretrained(folder), folder)


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_every_kind_of_tokenizer(tmp_path: Path, kind: Any) -> None:
    folder = write_tokenizer(tmp_path, kind)
    plain = read_plain(folder)
    assert plain is not None
    alike(plain, PreTrainedTokenizerFast.from_pretrained(folder), folder)


def test_the_model_that_ships_and_a_real_one(pytestconfig: pytest.Config) -> None:
    real = find_smollm2(pytestconfig)
    if real is None:
        pytest.skip(MISSING)
    for folder in (MODEL_FOLDER, real):
        plain = read_plain(folder)
        assert plain is not None, folder
        alike(plain, PreTrainedTokenizerFast.from_pretrained(folder), folder)


@pytest.mark.parametrize("change", NOT_PLAIN)
def test_what_else_files_say_transformers_reads(folder: Path, change: str) -> None:
    assert read_plain(folder) is not None
    NOT_PLAIN[change](folder)
    assert read_plain(folder) is None
    ours, theirs = PretrainedTokenizer(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    assert list(ours.encode("<new>x<|im_start|>")) == theirs.encode("<new>x<|im_start|>", add_special_tokens=False)


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        ({"model_type": "qwen2"}, True),
        ({"model_type": "mistral"}, False),
        ({}, False),
    ],
)
def test_of_large_vocabularies_transformers_knows_which_are_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, str], plain: bool
) -> None:
    monkeypatch.setattr("tts_search.generators.tokenizer_files._MISTRAL_VOCABULARY", 10)
    file(folder, "config.json", config)
    assert (read_plain(folder) is not None) is plain


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_any_text(tmp_path_factory: pytest.TempPathFactory, text: str, special: bool) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_text"
    if not folder.exists():
        processed(write_tokenizer(folder, "sentencepiece"))
    plain = read_plain(folder)
    assert plain is not None
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    assert plain.encode(text, add_special_tokens=special) == theirs.encode(text, add_special_tokens=special)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"added_tokens": 1}'])
def test_broken_files_are_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    if name == "tokenizer.json" or content in ("", "{"):
        with pytest.raises(ModelNotFoundError, match="tokenizer"):
            PretrainedTokenizer(folder)
    assert read_plain(folder) is None
