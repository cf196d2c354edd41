"""A tokenizer out of its files, as transformers reads them, without importing transformers where they are plain.

That import takes as much processor time as a thousand requests, and the client of a server needs nothing else of it.
Files are plain if `tokenizer.json` is all there is to the ids, and the chat template is one text. Whatever else a
folder can say (tokens to add, several templates, settings that are not known here), transformers reads itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol

from tts_search.errors import MissingDependencyError

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA = ("additional_special_tokens", "extra_special_tokens")
_NO_BEARING = (  # on ids and prompts, where tokenizer.json is read and texts are encoded as they are
    *("add_bos_token", "add_eos_token", "add_prefix_space", "auto_map", "backend", "clean_up_tokenization_spaces"),
    *("errors", "is_local", "legacy", "local_files_only", "max_length", "model_input_names", "model_max_length"),
    *("name_or_path", "padding_side", "processor_class", "sp_model_kwargs", "spaces_between_special_tokens"),
    *("tokenizer_class", "truncation_side", "use_default_system_prompt", "use_fast"),
)
_MISTRAL = frozenset({None, "mistral", "mistral3", "ministral", "voxtral", "pixtral"})
_MISTRAL_VOCABULARY = 100_000  # transformers warns of some of Mistral's tokenizers that are larger


class TokenizerFiles(Protocol):
    """What `PretrainedTokenizer` asks of transformers' fast tokenizer, and so of a plain one."""

    chat_template: Any
    eos_token_id: Any
    backend_tokenizer: Any
    added_tokens_decoder: Any

    def get_vocab(self) -> dict[str, int]: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, clean_up_tokenization_spaces: bool) -> str: ...

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """The tokenizer of a model folder.

    Raises:
        MissingDependencyError: the folder needs transformers, which is not installed.
        Exception: of whatever class transformers has for what is missing.
    """
    if plain := read_plain(folder):
        return plain
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError(
            "reading a model's tokenizer needs transformers: pip install transformers"
        ) from error
    # Not AutoTokenizer: its class for a model type (Qwen2Tokenizer) replaces the normalizer and the pre-tokenizer that
    # tokenizer.json describes by its own, and so changes ids without a word.
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def read_plain(folder: Path) -> PlainTokenizer | None:
    """The tokenizer of files that are plain; else, and where they cannot be read, None."""
    try:
        from tokenizers import AddedToken, Tokenizer

        settings = _object(folder / "tokenizer_config.json")
        told = settings.pop("added_tokens_decoder", None)
        listed: dict[str, int] = {}
        if told is None:  # older folders say in two files what newer ones say there
            listed = _object(folder / "added_tokens.json")
            settings |= _object(folder / "special_tokens_map.json")
        file = folder / "chat_template.jinja"
        template = file.read_text("utf-8") if file.is_file() else settings.get("chat_template")
        names = {name for name, value in settings.items() if value is not None and value is not False}
        plain = names <= {*NAMED, *EXTRA, *_NO_BEARING, "chat_template"} and isinstance(template, str | None)
        if not plain or (folder / "additional_chat_templates").exists():
            return None
        core = Tokenizer.from_file(str(folder / "tokenizer.json"))
        added: dict[int, AddedToken] = core.get_added_tokens_decoder()
        texts = {token.content: number for number, token in added.items()}
        known = {(number, repr(token)) for number, token in added.items()}
        plain = known.issuperset((int(number), repr(AddedToken(**entry))) for number, entry in (told or {}).items())
        plain = plain and listed.items() <= texts.items() and texts.keys() >= set(_special(settings))
        if not plain or _of_mistral(folder, core):
            return None
        named = {name: _content(settings[name]) for name in NAMED if settings.get(name) is not None}
        return PlainTokenizer(core, named, template)
    except Exception:  # whatever it is, transformers has the words for it
        return None


def _object(path: Path) -> dict[str, Any]:
    """What a JSON file says; nothing, where there is none."""
    read = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not isinstance(read, dict):
        raise TypeError(f"{path.name} is no JSON object")
    return read


def _content(token: Any) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _special(settings: Mapping[str, Any]) -> Iterator[str]:
    """The texts of the tokens that a folder's settings name; transformers adds to the vocabulary what is none yet."""
    yield from (_content(settings[name]) for name in NAMED if settings.get(name) is not None)
    for name in EXTRA:
        if not isinstance(listed := settings.get(name) or [], list):
            raise TypeError(f"{name} is no list")
        yield from map(_content, listed)


def _of_mistral(folder: Path, core: Any) -> bool:
    if core.get_vocab_size() <= _MISTRAL_VOCABULARY:
        return False
    return _object(folder / "config.json").get("model_type") in _MISTRAL


class PlainTokenizer:
    """The part of transformers' fast tokenizer that a search needs, over the same library of tokenizers.

    Args:
        core: a `tokenizers.Tokenizer`.
        named: the texts of special tokens by their names in a folder (`eos_token`), which chat templates may use.
        chat_template: None for a base model.

    Raises:
        ValueError: the template is none that can be read here.
    """

    def __init__(self, core: Any, named: Mapping[str, str], chat_template: str | None) -> None:
        core.no_truncation()
        core.no_padding()
        self.backend_tokenizer = core
        self.chat_template = chat_template
        self.added_tokens_decoder: dict[int, Any] = core.get_added_tokens_decoder()
        self.eos_token_id: int | None = core.token_to_id(named["eos_token"]) if "eos_token" in named else None
        self._named = dict(named)

    def get_vocab(self) -> dict[str, int]:
        """Ids by the spelling of tokens, added ones too."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text."""
        return self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Sequence[int], *, clean_up_tokenization_spaces: bool = False) -> str:
        """The text of ids."""
        assert not clean_up_tokenization_spaces
        return self.backend_tokenizer.decode(token_ids, skip_special_tokens=False)

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The prompt's text."""
        assert not tokenize
        if not conversation:
            raise ValueError("there are no messages")
        return self._template.render(
            messages=conversation,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._named,
        )

    @cached_property
    def _template(self) -> Any:
        return _environment().from_string(self.chat_template)


def _environment() -> Any:
    """The Jinja that chat templates are written for: transformers' (`_compile_jinja_template`)."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Around what an assistant says; it matters to training alone."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def as_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
