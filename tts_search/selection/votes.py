"""What an answer counts as in a vote. Reads text; it knows no candidate."""

from __future__ import annotations

import re


def final_answer(text: str) -> str | None:
    r"""The part of an answer that two answers must share to agree; None for an empty one.

    The last `\boxed{...}`, else what follows the last "answer is" or "answer:", else the last line; white space folded,
    dollars and a final full stop dropped.
    """
    boxed = _last_boxed(text)
    if boxed is None:
        said = re.findall(r"answer(?:\s+is|\s*:)\s*(\S[^\n]*)", text, flags=re.IGNORECASE)
        lines = [line for line in text.splitlines() if line.strip()]
        boxed = said[-1] if said else lines[-1] if lines else ""
    folded = " ".join(boxed.split()).rstrip(" .").strip("$").rstrip(".").strip()
    return folded or None


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    begin = start + len("\\boxed{")
    for position in range(begin, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            if depth == 0:
                return text[begin:position]
            depth -= 1
    return None
