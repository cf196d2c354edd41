r"""Mathematical notations made one: what people and models write becomes LaTeX, a number its value, and both a key.

`√2`, `sqrt(2)` and `\sqrt2` are one, so are `1/2`, `½` and `0.5`. It calls no library and simplifies nothing: whether
`(x+1)^2` is `x^2+2x+1` is math-verify's to say. All of it is linear in the length of an expression.
"""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Context, Decimal
from fractions import Fraction

from tts_search.grading.late import late
from tts_search.grading.units import MAGNITUDE, MAGNITUDES, UNITS, Quantity, Unit, split_unit

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑﹣－", "-"),
        **dict.fromkeys("，、；;", ","),
        **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "⁄": "/", "∕": "/", "π": r"\pi "},
        **{"∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup "},
        **{"∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ", "°": r"^\circ ", "θ": r"\theta ", "α": r"\alpha "},
        **{
            "（": "(",
            "）": ")",
            "［": "[",
            "］": "]",
            "｛": "{",
            "｝": "}",
            "＝": "=",
            "＋": "+",
            "％": "%",
            "．": ".",
        },
        **{
            "：": ":",
            "∶": ":",
            "＜": "<",
            "＞": ">",
            "／": "/",
            "＊": "*",
            "＄": "$",
            "￥": "¥",
            "~": " ",
            "\u00a0": " ",
            "\u202f": " ",
            "\u2009": " ",
        },
        **{chr(0xFF10 + i): str(i) for i in range(10)},
    }
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_RAISED_RUN = late("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_LOWERED_RUN = late("[₀₁₂₃₄₅₆₇₈₉]+")
_VULGAR = late("[¼½¾⅐-⅞]")
_TIMES = late(r"(?<=\d)\s?[xX]\s?(?=10\s?[\^⁰¹²³⁴-⁹⁻])")
_NOISE = late(
    r"""(?<=\d)(?:\\[,!;: ]|\{,\})(?=\d{3})  # spaces for thousands
    | \^\{\s*\} | \\(?:text)?color\{\w+\} | \\underline(?=\s*\{)
    | \\(?:left|right|displaystyle|limits|[bB]ig{1,2}[lr]?)(?![A-Za-z])
    | \\(?:tiny|small|large|Large)(?![A-Za-z]) | \\[()\[\]](?=\s*$) | ^\s*\\[()\[\]] | \\[,!;:>]""",
    re.VERBOSE,
)
_END = late(r"(?<![\s.])[\s.。]+$|\\[,!;]?\s*$")
_FONT = late(
    r"\\(?:text(?:bf|it|rm|tt|sf)?|math(?:rm|bf|it|tt|sf)|boldsymbol|bm|bf|it|rm|emph|[hm]box|operatorname)\s*\{([^{}]{0,200})\}"
)
_OR = late(
    r"\s{0,9}(?:或者|或|和|与|及)\s{0,9}|(?<=[\w)}])(?<![A-Za-z]{2})\s{1,3}(?:and|or)\s{1,3}(?=[-+\d(\\]|[A-Za-z]\s{0,3}=)|\\text\s*\{\s*(?:and|or|或者?|和|与|及)\s*\}"
)
_ONLY_WORDS = late(r"[^\W\d_]{2,40}(?:[ '-][^\W\d_]{1,40}){0,9}")
_WORDS = late(r"[A-Za-z]{3}|[^\W\d_A-Za-z]")
_SCIENTIFIC = late(r"(?<![\w.\\])(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})[eE]([+-]?\d{1,4})(?![\w.])")
_PI = late(r"(?<![A-Za-z\\])(pi|infinity|inf|oo)(?![A-Za-z])")
_POWER = late(r"\^\s*([+-]?\d+(?:\.\d+)?|-[A-Za-z])(?![\w}])|\^\s*\(([^(){}]{1,60})\)")
_ROOT = late(r"(√|∛|(?<![\\A-Za-z])sqrt)\s*")
_ROOTED = late(r"\d+(?:\.\d+)?|[A-Za-z]|\\pi")
_PERIOD = late(
    r"(?<![\d.])(-?)(\d{0,20})\.(\d{0,20})(?:\\(?:overline|bar|dot)\s*\{?(\d{1,20})\}?(?:\\dot\s*\{?(\d)\}?)?|\((\d{1,20})\))(?!\d)"
)
_MAGNITUDE = late(rf"(?<=\d)\s*\\?\s*(?:\\text\s*\{{\s*)?({MAGNITUDE})(?:\s*\}})?", re.IGNORECASE)
_COUNTED = late(
    r"(?<=[\d}])(?:\s|\\[ ,;])*(?:\\text\s*\{\s*)?(?:(?!(?:st|nd|rd|th|am|pm|ad|bc|squared|cubed|factorial|half|halves"
    r"|thirds?|quarters?|fourths?|fifths?|or|and|plus|minus|times|over|to|mod)\b)[A-Za-z]{2,30}"
    r"(?:[ /-]{1,3}[A-Za-z]{2,30}){0,5}"
    r"|(?![到至又或和与加减乘除])(?!.{0,5}分之)[\u4e00-\u9fff]{1,6}(?:/[\u4e00-\u9fff]{1,2})?)\s*\}?$"
)
_CLOCK = late(r"(\d{1,2})(?::(\d\d))?\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_TIME_OF_DAY = Unit("time of day", Fraction(1), "")  # in minutes
_PART = r"\d{1,20}(?:\.\d{1,20})?"
_RATIO = late(rf"{_PART}(?:\s?:\s?{_PART}){{1,9}}|{_PART}\s+to\s+{_PART}")
_BASED = late(r"(\d{1,60})\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_DECIDES = late(
    r"\b(north|south|east|west|more|fewer|less|increase|decrease|profit|loss|BCE?|AD|CE|Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?"
    r"|Oct|Nov|Dec|January|February|March|April|August|September|October|November|December)\b",
    re.IGNORECASE,
)
_CASES = late(r"\\begin\s*\{cases\}(.{1,400}?)\\end\s*\{cases\}", re.DOTALL)
_DOLLAR = late(r"\\text\s*\{\s*\\?\$\s*\}")
_THOUSANDS = late(r"(?<=[$€£])(\d{1,6})[kK](?![A-Za-z])")
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six"]
NUMBER_WORDS += ["seven", "eight", "nine", "ten", "eleven", "twelve"]
_IN_ROMAN = late(r"\\mathrm\s*\{\s*([ied])\s*\}")
_ARROW = late(r"^\s*(?:=>|⇒|→|∴|\\(?:Rightarrow|implies|therefore)(?![A-Za-z]))\s*")
_ROW = late(r"\s*\\\\(?:\s*\[[^\]]{0,10}\])?\s*")
_SPACED = late(r"(?<![\d.,])[1-9]\d{0,2}(?:[ \u00a0\u202f]\d{3}){1,4}(?![\d,])")
_SHARE = late(r"(百分之|千分之|(?<!\d)\d{1,9}\s?分之\s?)(\d{1,9}(?:\.\d{1,9})?)")
_COUNTS = late(
    r"^(?:[A-Za-z][A-Za-z ]{1,30}:\s*(?=[-\d\\$(])|(?:一共|总共|共|答案?(?:[:是为]|是:)?|约)\s?(?=[-\d])"
    r"|\\text\s*\{\s*(?:答案?[为是:]?|[A-Za-z ]{1,30}(?::|\bis\b))\s*\}\s*)"
)
_TOGETHER = late(r"(\d{1,12}(?:\.\d{1,12})?)\s*([A-Za-z\u4e00-\u9fff]{1,12})\.?\s*(?:,|and|又)?\s*")
_MIXED = late(r"(?<=\d)\s*又\s*(?=\d{1,20}\s*/\s*\d|\\[dt]?frac)")
_GOES_ON = late(r"(?<![\d.])(\d{0,20})\.(\d{0,20}?)(\d{1,6}?)\3{1,20}\s?(?:\.{3}|…|\\[lc]?dots)(?!\d)")
_FUNCTION = late(
    r"(?<![A-Za-z\\])(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln)(?=\s*[({\d\\]|\s+[a-z]\b)|(?<![A-Za-z\\])exp(?=\s*\()"
)
_IMAGINARY = late(r"(?<=\d)\s*\*\s*I(?!\w)")
_IN_DEGREES = late(
    r"(\\(?:sin|cos|tan|cot|sec|csc))\s*[({]?\s*(\d{1,10}(?:\.\d{1,10})?)\s*\^\s*\{?\s*\\circ\s*\}?\s*[)}]?"
)
_NAMED = late(
    r"^\s*(?:\\text\s*\{[A-Za-z ]{1,30}\}|\\?[A-Za-z](?:_\{?\w{1,10}\}?)?(?:\([a-z]\))?)\s*(?:=|\\in(?![a-z]))\s*(?=\S)"
)
_POINT = late(r"[A-Z]\s?\([^()=]{1,40},[^()=]{1,40}\)$")
_EQUALITY = late(r"(?<![<>!:=\\])=(?!=)")

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_PARTS = late(
    rf"""(?P<sign>[+-]?)\s*(?:
      (?P<number>{_NUMBER})(?:\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{{\s*(?P<power>[+-]?\d{{1,4}})\s*\}}|(?P<digit>\d)))?
    | (?:(?P<whole>\d{{1,20}})\s*)?\\[dt]?frac\s*(?:\{{\s*(?P<up>-?\d+(?:\.\d+)?)\s*\}}|(?P<up1>\d))
      \s*(?:\{{\s*(?P<down>-?\d+(?:\.\d+)?)\s*\}}|(?P<down1>\d))
    | (?:(?P<whole2>\d{{1,20}})\s+)?(?P<up2>\d+(?:\.\d+)?)\s*/\s*(?P<down2>-?\d+(?:\.\d+)?)
    | 10\s*\^\s*(?:\{{\s*(?P<ten>[+-]?\d{{1,4}})\s*\}}|(?P<ten1>\d))
    )""",
    re.VERBOSE,
)
_LONGEST = 4_000  # characters of an expression: longer ones are left as they are
_LONGEST_NUMBER = 400  # characters: longer ones are texts
_GREATEST_POWER = 1_000
_EXACT = Context(prec=2 * _LONGEST_NUMBER)


def latex(text: str) -> str:
    """An expression in any usual notation as LaTeX, without what means nothing and confuses a parser."""
    text = _ARROW.sub("", text.strip())
    if len(text) > _LONGEST:
        return text
    if text.startswith(("$", "\\(", "\\[")) or text.endswith("$"):
        text = re.sub(r"^(?:\$(?!\d[^$]*$)|\\[(\[])+|(?:\\[)\]]|(?<!\\)\$)+$", "", text).strip()
    text = _TIMES.sub(r"\\times ", _VULGAR.sub(_fraction, text))
    text = _RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(_RAISED)}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{run[0].translate(_LOWERED)}}}", text)
    text = _OR.sub(r" \\text{ or } ", text.translate(_SIGNS))
    text = (
        _NOISE.sub("", text)
        .replace(r"\varnothing", r"\emptyset")
        .replace(r"\dfrac", r"\frac")
        .replace(r"\tfrac", r"\frac")
    )
    text = text.replace(r"^{\circ}", r"^\circ ").removeprefix("=").removeprefix(r"\approx").strip()
    text = text.replace("**", "^").replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
    if whole := _FONT.fullmatch(text):
        text = whole[1].strip()
    if (word := text.casefold()) in NUMBER_WORDS:
        text = str(NUMBER_WORDS.index(word))
    text = _CASES.sub(lambda m: _ROW.sub(", ", m[1].replace("&", "").strip()), text)
    text = _SHARE.sub(_share, _COUNTS.sub("", _THOUSANDS.sub(r"\1000", _DOLLAR.sub(r"\\$", text))))
    text = _SPACED.sub(lambda m: re.sub(r"\s", "", m[0]), text.replace(r"\degree", r"^\circ "))
    text = (
        _IN_ROMAN.sub(r"\1", re.sub(r"\\\\\[[^\]]{0,10}\]", r"\\\\ ", text))
        .replace(r"\langle", "(")
        .replace(r"\rangle", ")")
    )
    text = _MAGNITUDE.sub(lambda m: rf"\times{MAGNITUDES[m[1].lower()]}", _MIXED.sub(" ", text))
    text = _SCIENTIFIC.sub(lambda m: rf"{m[1]}\times10^{{{int(m[2])}}}", text)
    text = _GOES_ON.sub(r"\1.\2(\3)", text)
    text = _PERIOD.sub(_repeating, text)
    text = _IN_DEGREES.sub(r"\1(\\frac{\2 \\pi}{180})", text)
    text = _PI.sub(lambda m: r"\pi " if m[1] == "pi" else r"\infty ", text)
    text = _IMAGINARY.sub("i", _FUNCTION.sub(_function, text))
    text = _rooted(text)
    text = _POWER.sub(lambda m: f"^{{{m[1] or m[2]}}}", text)
    text = re.sub(r"(?<=[\w)}\s])\*(?=\s*[\w(\\])", r" \\cdot ", text)
    return _END.sub("", text.strip()).strip()


def value(text: str) -> Fraction | None:
    """What a plain number (an integer, decimal, fraction, mixed or scientific one) is exactly; None for all else."""
    text = _FONT.sub(r"\1", text.strip()).strip()
    if len(text) > _LONGEST_NUMBER:
        return None
    while text.startswith("{") and text.endswith("}") and text.find("}") == len(text) - 1:
        text = text[1:-1].strip()
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        text = text[1:-1].strip()  # (-3)
    found = _PARTS.fullmatch(text)
    if found is None:
        return None
    sign = -1 if found["sign"] == "-" else 1
    if found["number"]:
        power = int(found["power"] or found["digit"] or 0)
        if abs(power) > _GREATEST_POWER:
            return None
        return sign * Fraction(found["number"].replace(",", "").rstrip(".")) * Fraction(10) ** power
    if found["ten"] or found["ten1"]:
        power = int(found["ten"] or found["ten1"])
        return None if abs(power) > _GREATEST_POWER else sign * Fraction(10) ** power
    up, down = found["up"] or found["up1"] or found["up2"], found["down"] or found["down1"] or found["down2"]
    whole = found["whole"] or found["whole2"]
    if Fraction(down) == 0 or (whole and "-" in up + down):
        return None
    return sign * (Fraction(whole or 0) + Fraction(up) / Fraction(down))


def quantity(text: str) -> Quantity | None:
    """A plain number with its unit, if it has a known one; several of one measure (3 hours 20 minutes) are added up."""
    text = text.strip()
    if whole := _FONT.fullmatch(text):
        text = whole[1].strip()
    short = _FONT.sub(r" \1 ", text).strip() if len(text) <= _LONGEST_NUMBER else ""
    if at := _clock(short):
        return Quantity(Fraction(at[0]), _TIME_OF_DAY)
    if ratio := _ratio(short):
        return ratio
    if based := _BASED.fullmatch(short):
        return Quantity(Fraction(based[1]), Unit(f"base {based[2]}", Fraction(1), f"_{{{based[2]}}}"))
    if together := _together(short):
        return together
    number, unit = split_unit(text)
    if unit is None and (counted := _COUNTED.search(text[-200:])):
        number = text[: len(text) - len(text[-200:]) + counted.start()]  # 12 apples
        if decides := _DECIDES.search(counted[0]):  # 4 May is no 4 June, though either may be said as 4
            word = decides[1].lower()
            unit = Unit(word[:3] if word != "more" else word, Fraction(1), f" {word}")
    exact = value(number)
    return None if exact is None else Quantity(exact, unit)


def key(text: str) -> str:
    r"""One spelling for an expression: a number's value, else the expression in LaTeX without spaces.

    The name in `x = 5` is dropped, and so are dollars and what is counted. Other equations stay whole.
    """
    plain = unnamed(latex(text))
    if len(plain) > _LONGEST:
        return " ".join(plain.split())
    counted = quantity(plain)
    if counted is not None and counted.unit is _TIME_OF_DAY:
        return (_clock(_FONT.sub(r" \1 ", plain).strip()) or (0, plain))[1]
    if counted is not None and counted.unit and counted.unit.measure.startswith("ratio"):
        return counted.unit.suffix
    if counted is not None:
        return spelled(counted.number) + (counted.unit.suffix if counted.unit else "")
    if _WORDS.search(re.sub(r"\\[A-Za-z]+", " ", plain.replace(r"\text{ or }", ","))):
        return " ".join(_FONT.sub(r"\1", plain).split())
    plain = _FONT.sub(lambda m: m[1].strip() if m[1].strip() != "or" else ",", plain)
    plain = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", plain)
    plain = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", plain)
    return re.sub(r"\\(?:times|cdot)(?![A-Za-z])", "*", re.sub(r"\s+|\\ ", "", plain))


def unnamed(plain: str) -> str:
    """The value alone of `x = 5`, `f(x) = 5`, `5 = x`; any other expression as it is."""
    parts = _EQUALITY.split(plain)
    if len(parts) > 2:
        return plain
    if _POINT.match(plain):
        return plain[1:].strip()  # P(3, 4)
    if named := _NAMED.match(plain):
        return plain[named.end() :].strip()
    return parts[0].strip() if len(parts) == 2 and re.fullmatch(r"\s*[A-Za-z]\s*", parts[1]) else plain


def name_of(plain: str) -> str | None:
    """The name in `x = 5`, `f(x) = 5`, `5 = x`; None where `unnamed` leaves an expression as it is."""
    value_alone = unnamed(plain)
    if value_alone == plain:
        return None
    is_last = plain.endswith(value_alone)
    return (plain.removesuffix(value_alone) if is_last else plain.removeprefix(value_alone)).strip(" =")


def spelled(number: Fraction) -> str:
    """A number in one spelling: `42`, `0.5`, `1/3`, `6.6e-34`."""
    if number.denominator == 1 and abs(number.numerator) < 10**21:
        return str(number.numerator)
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return f"{number.numerator}/{number.denominator}"
    exact = _EXACT.divide(Decimal(number.numerator), Decimal(number.denominator)).normalize(_EXACT)
    if -7 <= exact.adjusted() <= 20:
        return f"{exact:f}"
    sign, digits, _ = exact.as_tuple()
    tail = "".join(map(str, digits[1:]))
    return f"{'-' * sign}{digits[0]}{'.' * bool(tail)}{tail}e{exact.adjusted()}"


def in_words(plain: str) -> str | None:
    r"""Words that are no mathematics, in one spelling: `\text{Monday}` and `Monday` are "monday"; else None."""
    words = " ".join(_FONT.sub(r"\1", plain).split()).casefold()
    return words if _ONLY_WORDS.fullmatch(words) else None


def sides(text: str) -> list[str]:
    """The sides of an equation or of a chain of them; one for anything else."""
    return [side.strip() for side in _EQUALITY.split(text)]


def is_mathematical(text: str) -> bool:
    """Whether two such keys can mean the same without being the same: expressions, no words, no sum that is shown."""
    if (
        len(text) > 200
        or "\n" in text
        or not re.search(r"\d|\\[a-zA-Z]|[A-Za-z]\s*[-+*/^=(]|[-+*/^=)]\s*[A-Za-z]", text)
    ):
        return False
    if len(sides(text)) > 1 and not re.search(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", sides(text)[0]):
        return False  # (13-4)*9+6=87 is an answer of its own: what it equals says nothing of how
    if re.search(r"\d\.\d+\.\d", text):
        return False  # an address, a version
    words = re.sub(r"\\(?:begin|end)\s*\{[A-Za-z]+\*?\}|\\[A-Za-z]+", " ", text)
    return re.search(r"[A-Za-z]{4}|[^\x00-\x7f]", words) is None


def _function(found: re.Match[str]) -> str:
    return "e^" if found[0] == "exp" else rf"\{found[0]}"


def _clock(text: str) -> tuple[int, str] | None:
    """A time of day in minutes, and in one spelling."""
    found = _CLOCK.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 12:
        return None
    hour, minute, half = int(found[1]), int(found[2] or 0), found[3].lower()
    return (hour % 12 + 12 * (half == "p")) * 60 + minute, f"{hour}:{minute:02} {half}m"


def _together(text: str) -> Quantity | None:
    """`3 hours 20 minutes` in minutes."""
    parts = list(_TOGETHER.finditer(text))
    if len(parts) < 2 or sum(len(part[0]) for part in parts) != len(text):
        return None
    units = [UNITS.get(part[2]) or UNITS.get(part[2].lower()) for part in parts]
    if any(unit is None or unit.measure != (units[0] and units[0].measure) for unit in units):
        return None
    known = [unit for unit in units if unit is not None]
    total = sum((Fraction(part[1]) * unit.factor for part, unit in zip(parts, known, strict=True)), Fraction(0))
    return Quantity(total / known[-1].factor, known[-1])


def _ratio(text: str) -> Quantity | None:
    """`4:6` and `2 to 3`, in lowest terms; of more than two parts the ratio of all to all is what it measures."""
    if not _RATIO.fullmatch(text):
        return None
    parts = [Fraction(part) for part in re.findall(_PART, text)]
    if not all(parts):
        return None
    whole = [part * math.lcm(*(part.denominator for part in parts)) for part in parts]
    terms = [str(part / math.gcd(*(int(part) for part in whole))) for part in whole]
    measure = "ratio" if len(terms) == 2 else f"ratio {':'.join(terms)}"
    return Quantity(parts[0] / parts[1], Unit(measure, Fraction(1), ":".join(map(spelled, parts))))


def _share(found: re.Match[str]) -> str:
    """`百分之5`, `7分之3`."""
    of = found[1].removesuffix("分之").strip() if found[1][0].isdigit() else ""
    return {"百分之": rf"{found[2]}\%", "千分之": rf"\frac{{{found[2]}}}{{1000}}"}.get(found[1]) or (
        rf"\frac{{{found[2]}}}{{{of.removesuffix('分之').strip()}}}"
    )


def _fraction(sign: re.Match[str]) -> str:
    up, _, down = unicodedata.normalize("NFKC", sign[0]).partition("⁄")
    return rf"\frac{{{up}}}{{{down}}}"


def _repeating(found: re.Match[str]) -> str:
    sign, whole, fixed = found[1], found[2] or "0", found[3]
    period = found[4] + found[5] if found[5] else found[4] or found[6]
    exact = Fraction(int(whole + fixed), 10 ** len(fixed)) + Fraction(
        int(period), 10 ** len(fixed) * (10 ** len(period) - 1)
    )
    return rf"{sign}\frac{{{exact.numerator}}}{{{exact.denominator}}}"


def _rooted(text: str) -> str:
    """Roots as LaTeX: a bracket behind one becomes a brace, with its partner."""
    if not _ROOT.search(text):
        return text
    partners, changed = _partners(text), list(text)
    for root in _ROOT.finditer(text):
        begin, end = root.span()
        changed[begin:end] = [r"\sqrt[3]" if root[1] == "∛" else r"\sqrt", *[""] * (end - begin - 1)]
        if end in partners:
            changed[end], changed[partners[end]] = "{", "}"
        elif operand := _ROOTED.match(text, end):
            changed[end] = "{" + changed[end]
            changed[operand.end() - 1] += "}"
    return "".join(changed)


def _partners(text: str) -> dict[int, int]:
    """Of every opening bracket its closing one."""
    opened: list[int] = []
    found: dict[int, int] = {}
    for at, letter in enumerate(text):
        if letter in "({":
            opened.append(at)
        elif letter in ")}" and opened:
            found[opened.pop()] = at
    return found
