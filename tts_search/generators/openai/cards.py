"""What a server lists of its models. Of an odd list what can be read is read. It knows JSON, and no connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from tts_search.errors import ModelNotFoundError
from tts_search.generators.openai.shapes import Meta, Struct, shaped


class Card(Struct):
    """A model as the server lists it."""

    id: str
    root: str | None = None  # vLLM and SGLang: the folder or hub id that it was loaded from
    parent: str | None = None  # vLLM: of an adapter, its model; of another name for a model, the model's
    max_model_len: Annotated[int, Meta(ge=2)] | None = None
    context_length: int | None = None  # OpenRouter, Together
    context_window: int | None = None  # Groq
    max_context_length: int | None = None  # Mistral
    owned_by: str | None = None  # of servers, not of models: "vllm", "sglang", "llamacpp"

    @property
    def context(self) -> int | None:
        """The longest prompt plus completion in tokens, by any of its names."""
        named = (self.max_model_len, self.context_length, self.context_window, self.max_context_length)
        return next((tokens for tokens in named if tokens and tokens >= 2), None)


def cards_in(listed: object) -> list[Card] | None:
    """The models of a list that a server has sent; None where it has sent no list.

    A field that is not what it should be is taken as not there, and an entry without a name as none: one odd model of
    many is no reason to be without the others.
    """
    if isinstance(listed, Mapping):
        if listed.get("error") or "data" not in listed:
            return None
        listed = listed["data"] or []
    if not isinstance(listed, list):
        return None
    return [card for entry in listed if (card := _card(entry)) is not None]


def _card(entry: object) -> Card | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        return None
    fields = {name: entry[name] for name in Card.__struct_fields__ if name in entry}
    return shaped(Card, {name: value for name, value in fields.items() if _fits(name, value)})


def _fits(name: str, value: object) -> bool:
    try:
        shaped(Card, {"id": "", name: value})
    except ValueError:
        return False
    return True


def only(name: str, cards: Sequence[Card], listed: Sequence[Card]) -> Card:
    """The one of these cards, or the first of several names for the same weights: of those, one without a parent.

    Servers name one model several times to say how it is asked, as `tts-search serve` does with efforts.

    Raises:
        ModelNotFoundError: there is none, or there are several; it names what the server lists.
    """
    roots = {card.root for card in cards}
    if len(cards) == 1 or (len(roots) == 1 and None not in roots):
        return next((card for card in cards if card.parent is None), cards[0])
    names = ", ".join(card.id for card in listed[:8]) or "none by its own account"
    how = (
        f"say which, as in engine_args={ {'model': listed[0].id} }"
        if listed
        else "name it, as in engine_args={'model': 'its name there'}"
    )
    raise ModelNotFoundError(f"{name} serves {len(listed)} models ({names}{', ...' if len(listed) > 8 else ''}): {how}")
