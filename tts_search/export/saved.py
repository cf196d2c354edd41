"""A whole search as JSON and back, without loss: `from_json(to_json(result))` shows and exports as `result` does.

The model's tokenizer is not needed to read one. The file carries the bytes of every token that occurs, and the rule by
which they were cut into steps; from these the tree decodes and splits its text as before. Knows no other format.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, create_model

from tts_search import errors
from tts_search.core.recorded import RecordedTokens, record
from tts_search.core.result import SearchResult
from tts_search.core.tree import Ending, Node, Tree
from tts_search.errors import InvalidInputError, TTSError
from tts_search.export.rows import Source
from tts_search.segmentation import Segmenter, State, rule_from_json, rule_to_json
from tts_search.thinking import Ids

FORMAT, VERSION = "tts-search", 1
MAX_TOKEN_ID = 1 << 24  # far above any vocabulary, and few enough to walk through

# JSON has no NaN and no infinities: they are written as strings, as protobuf's JSON does, and read back from them.
_CONFIG = ConfigDict(extra="forbid", ser_json_inf_nan="strings", ser_json_bytes="hex", val_json_bytes="hex")

_Question = str | list[dict[str, Any]]


class _Tokens(BaseModel):
    """`text` maps token ids to their text, or to their bytes where these alone are not text. `silent` tokens (the end
    of text) decode to nothing.
    """

    model_config = _CONFIG
    text: dict[int, str | list[int]]
    silent: list[int]
    thinking: tuple[Ids, Ids] | None
    step_rule: dict[str, JsonValue]


class _Node(BaseModel):
    """A node as a file shows it: what belongs to its path is written out, so that each can be read by itself."""

    model_config = _CONFIG
    index: int
    parent: int | None
    depth: int
    length: int
    token_ids: list[int]
    ending: Ending
    state: State
    step_ends: list[int] = []
    step_scores: list[float] = []
    value: float = 0.0
    logprobs: list[float] = []
    token_scores: list[float] | None = None
    forced_tokens: int = 0
    counted_tokens: int | None = None


class _Tree(BaseModel):
    model_config = _CONFIG
    question: _Question
    prompt_ids: list[int]
    prompt: str  # for human readers, like `texts`: derived from the ids, and not read back
    tokens: _Tokens
    nodes: list[_Node]
    visits: dict[int, int] = {}
    texts: list[str]


class _Error(BaseModel):
    model_config = _CONFIG
    type: str
    message: str


_APART = {"question", "tree", "error"}  # these take a form of their own in the file


def _plain_fields() -> dict[str, Any]:
    """Every other field of a result, read off the class: one that is added there is saved without a change here."""
    hints = get_type_hints(SearchResult)
    found: dict[str, Any] = {}
    for field in fields(SearchResult):
        if field.name not in _APART:
            default = ... if field.default is MISSING else field.default
            factory = field.default_factory
            found[field.name] = (hints[field.name], default if factory is MISSING else factory())
    return found


_Result = create_model("_Result", __config__=_CONFIG, **_plain_fields())


class _File(BaseModel):
    """A result with its tree, or a tree alone: then `question` and `result` are missing."""

    model_config = _CONFIG
    format: Literal["tts-search"]
    version: Literal[1]
    question: _Question | None = None
    result: _Result | None = None  # pyright: ignore[reportInvalidTypeForm] # a class made at run time
    error: _Error | None = None
    tree: _Tree | None = None


def to_json(source: Source, *, indent: int | None = None) -> str:
    """A whole search as JSON text: the result with its tree, or a tree alone.

    Without loss but for three things: messages come back as a list of dicts, an error as one of the same class if it is
    this package's and else as a `TTSError`, and lone surrogates, which no UTF-8 file can hold, become U+FFFD.

    Raises:
        InvalidInputError: the tree's `decode` is not the concatenation of its tokens' bytes, as `Vocabulary` demands.
    """
    if isinstance(source, Tree):
        file = _File(format=FORMAT, version=VERSION, tree=_pack_tree(source))
        return file.model_dump_json(indent=indent, include={"format", "version", "tree"})
    values = {name: getattr(source, name) for name in _Result.model_fields}
    error = source.error
    file = _File(
        format=FORMAT,
        version=VERSION,
        question=_question(source.question),
        result=_Result.model_construct(**{name: _clean(value) for name, value in values.items()}),
        error=None if error is None else _Error(type=type(error).__name__, message=_clean(str(error))),
        tree=None if source.tree is None else _pack_tree(source.tree),
    )
    return file.model_dump_json(indent=indent)


def from_json(text: str | bytes) -> SearchResult:
    """The result that `to_json` wrote.

    Raises:
        InvalidInputError: the text is not such a file, holds a tree alone, or was written by a newer version.
    """
    file = _parse(text)
    if file.question is None or file.result is None:
        raise InvalidInputError("this file holds no result; a tree alone is read by tree_from_json")
    values = {name: getattr(file.result, name) for name in _Result.model_fields}
    return SearchResult(
        question=file.question,
        tree=None if file.tree is None else _unpack_tree(file.tree),
        error=None if file.error is None else _unpack_error(file.error),
        **values,
    )


def tree_from_json(text: str | bytes) -> Tree:
    """The tree of any file that `to_json` wrote, of a result or of a tree alone.

    Raises:
        InvalidInputError: the text is not such a file, or holds no tree.
    """
    file = _parse(text)
    if file.tree is None:
        raise InvalidInputError("this file holds a result without a tree")
    return _unpack_tree(file.tree)


def _parse(text: str | bytes) -> _File:
    try:
        return _File.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise InvalidInputError(f"not a search saved by this version of tts-search: {place}: {first['msg']}") from error


def _pack_tree(tree: Tree) -> _Tree:
    tokens, recorded = _pack_tokens(tree)
    texts = [tree.decode(node.token_ids) for node in tree]
    for node, text in zip(tree, texts, strict=True):
        if recorded.decode(node.token_ids) != text:
            raise InvalidInputError(
                f"the tokenizer decodes node {node.index} to {text[:80]!r}, but the bytes of its tokens are "
                f"{recorded.decode(node.token_ids)[:80]!r}: a tokenizer's text must be the bytes of its tokens in a row"
            )
    return _Tree.model_construct(
        question=_question(tree.question),
        prompt_ids=list(tree.prompt_ids),
        prompt=recorded.decode(tree.prompt_ids),
        tokens=tokens,
        nodes=[_pack_node(node) for node in tree],
        visits=tree.visits,
        texts=texts,
    )


def _pack_tokens(tree: Tree) -> tuple[_Tokens, RecordedTokens]:
    recorded, rule = record(tree.segmenter, set(tree.prompt_ids).union(*(node.ids for node in tree)), tree.decode)
    packed = _Tokens(
        text={token: _pack_bytes(data) for token, data in recorded.texts.items()},
        silent=sorted(recorded.silent),
        thinking=recorded.thinking,
        step_rule=rule_to_json(rule),
    )
    return packed, recorded


def _unpack_tree(packed: _Tree) -> Tree:
    tokens = packed.tokens
    try:
        texts = {token: text.encode() if isinstance(text, str) else bytes(text) for token, text in tokens.text.items()}
        if any(not 0 <= token < MAX_TOKEN_ID for token in texts):
            raise ValueError(f"token ids must lie between 0 and {MAX_TOKEN_ID}")
        vocabulary = RecordedTokens(texts, silent=frozenset(tokens.silent), thinking=tokens.thinking)
        segmenter = Segmenter(vocabulary, rule_from_json(tokens.step_rule))
        tree = Tree(packed.question, packed.prompt_ids, segmenter, vocabulary.decode)
        root, *others = packed.nodes
        if root.index != 0 or root.parent is not None:
            raise ValueError("its first node is not a root")
        tree.nodes[0] = _unpack_node(root, None)
        tree.visits.update(packed.visits)
        for node in others:
            if node.parent is None or not 0 <= node.parent < node.index:
                raise ValueError(f"node {node.index} with parent {node.parent} does not fit the tree")
            parent = tree.nodes[node.parent]
            tree.add(_unpack_node(node, parent))
            if node.depth != parent.depth + 1 or node.length != parent.length + len(node.token_ids):
                raise ValueError(f"node {node.index} does not continue its parent {parent.index}")
        missing = set(tree.prompt_ids).union(*(node.ids for node in tree)) - texts.keys()
        if missing:
            raise ValueError(f"token {min(missing)} has no text")
    except (ValueError, IndexError, OverflowError) as error:
        raise InvalidInputError(f"the tree in this file is broken: {error}") from error
    return tree


def _pack_node(node: Node) -> _Node:
    return _Node.model_construct(
        index=node.index,
        parent=node.parent,
        depth=node.depth,
        length=node.length,
        token_ids=node.ids.tolist(),
        ending=node.ending,
        state=node.state,
        step_ends=list(node.step_ends),
        step_scores=list(node.step_scores),
        value=node.value,
        logprobs=node.logprobs.tolist(),
        token_scores=None if node.token_scores is None else node.token_scores.tolist(),
        forced_tokens=node.forced_tokens,
        counted_tokens=node.counted_tokens,
    )


def _unpack_node(packed: _Node, up: Node | None) -> Node:
    """What an aggregation would go on from is not in the file: a tree that was read is looked at, not grown."""
    ends, scores = tuple(packed.step_ends), tuple(packed.step_scores)
    ends_before, scores_before = (up.step_ends, up.step_scores) if up else ((), ())
    if ends[: len(ends_before)] != ends_before:
        raise ValueError(f"the steps of node {packed.index} do not continue its parent's")
    rescored = scores[: len(scores_before)] != scores_before
    return Node(
        index=packed.index,
        up=up,
        depth=packed.depth,
        length=packed.length,
        ids=array("i", packed.token_ids),
        ending=packed.ending,
        state=packed.state,
        new_step_ends=ends[len(ends_before) :],
        new_step_scores=scores if rescored else scores[len(scores_before) :],
        rescored=rescored,
        step_count=len(ends),
        value=packed.value,
        logprobs=array("d", packed.logprobs),
        token_scores=None if packed.token_scores is None else array("d", packed.token_scores),
        forced_tokens=packed.forced_tokens,
        counted_tokens=packed.counted_tokens,
        logprob_sum=math.fsum(packed.logprobs) + (up.logprob_sum if up else 0.0),
        logprob_count=len(packed.logprobs) + (up.logprob_count if up else 0),
    )


def _pack_bytes(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def _unpack_error(packed: _Error) -> Exception:
    kind = getattr(errors, packed.type, None)
    if isinstance(kind, type) and issubclass(kind, TTSError):
        return kind(packed.message)
    return TTSError(f"{packed.type}: {packed.message}")


def _question(question: Any) -> _Question:
    if isinstance(question, str):
        return _clean(question)
    return [{str(key): _clean(value) for key, value in message.items()} for message in question]


def _clean(value: Any) -> Any:
    """The same value, with what UTF-8 cannot write replaced in every text in it."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, tuple):
        return tuple(map(_clean, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _clean(getattr(value, field.name)) for field in fields(value)})
    return value
