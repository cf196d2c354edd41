r"""What stands behind a number: units, what one is in terms of another, and magnitudes. 5 km is not 5 m, but 5000 m.

A number without a unit agrees with any; words that are no unit of the table are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from tts_search.grading.late import late


@dataclass(frozen=True, slots=True)
class Unit:
    """What it measures, how many of the measure's basic unit it is, and how a key says it."""

    measure: str
    factor: Fraction
    suffix: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact number and its unit; None where it has none."""

    number: Fraction
    unit: Unit | None

    def disagrees(self, other: Quantity) -> bool:
        """Whether both have units, and they say different things."""
        return self.unit is not None and other.unit is not None and not self.agrees(other)

    def agrees(self, other: Quantity) -> bool:
        """Whether they are equal. A number without a unit is that number of anything; 0.5 is 50 %, 24 are 2 dozen."""
        ours, theirs = self.unit, other.unit
        if ours and theirs:
            return ours.measure == theirs.measure and self.number * ours.factor == other.number * theirs.factor
        percents = [q.number for q in (self, other) if q.unit and q.unit.measure == "percent"]
        counts = [q.number * q.unit.factor for q in (self, other) if q.unit and q.unit.measure == "count"]
        return self.number == other.number or any(
            amount == q.number
            for amount in [share / 100 for share in percents] + counts
            for q in (self, other)
            if q.unit is None
        )

    def is_near(self, other: Quantity) -> bool:
        """Whether one can be the other rounded: less than a hundred-thousandth of it apart, and not both whole."""
        if (self.unit and other.unit) or self.number.denominator == other.number.denominator == 1:
            return False
        return abs(self.number - other.number) * 100_000 < max(abs(self.number), abs(other.number))


_TABLE = """
length: nm nanometer nanometre 0.000000001, mm millimeter millimetre 毫米 0.001, cm centimeter centimetre 厘米 0.01
length: dm 分米 0.1, m meter metre 米 1, km kilometer kilometre 千米 公里 1000
length: in inch inches 0.0254, ft foot feet 0.3048, yd yard 0.9144, mi mile 1609.344
mass: mg milligram 毫克 0.001, g gram 克 1, kg kilogram kilo 千克 公斤 1000, 吨 1000000
mass: oz ounce 28.349523125, lb pound 453.59237
time: ms millisecond 0.001, s sec second 秒 1, min minute 分钟 分 60, h hr hour 小时 3600, day 天 86400, week 周 604800
money: cent ¢ 0.01, $ dollar 1
euro: € euro 1
sterling: £ 1
yen: ¥ yen yuan 1
volume: ml mL milliliter millilitre 毫升 0.001, cl 0.01, l L liter litre 升 1
volume: gallon 3.785411784, quart 0.946352946, pint 0.473176473
area: mm^2 平方毫米 0.000001, cm^2 平方厘米 0.0001, 平方分米 0.01, m^2 平方米 1, km^2 平方千米 平方公里 1000000
space: mm^3 立方毫米 0.000000001, cm^3 立方厘米 0.000001, 立方分米 0.001, m^3 立方米 1
speed: m/s 米/秒 1, km/h kph 千米/时 千米/小时 0.277777777777777777777777777, mph 0.44704
acceleration: m/s^2 米/秒^2 1
force: N newton 牛 1, kN 1000
energy: J joule 焦 1, kJ 1000, MJ 1000000, cal calorie 4.184, kcal 4184
power: W watt 1, kW 1000, MW 1000000
voltage: mV 0.001, V volt 伏 1, kV 1000
charge: C coulomb 1
resistance: Omega Ω ohm 1
frequency: Hz hertz 1, kHz 1000, MHz 1000000, GHz 1000000000
pressure: Pa pascal 1, kPa 1000
data: KB 1000, MB 1000000, GB 1000000000
angle: ^\\circ degree 度 1
temperature: ^\\circC 摄氏度 1
kelvin: K kelvin 1
fahrenheit: ^\\circF 1
percent: % percent 1
count: dozen 12
"""


def _read(table: str) -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for line in table.strip().splitlines():
        measure, _, entries = line.partition(":")
        for entry in entries.split(","):
            *names, factor = entry.split()
            exact = Fraction(5, 18) if "7777" in factor else Fraction(factor)
            unit = Unit(measure, exact, _suffix(measure, exact, names[0]))
            units.update(dict.fromkeys(names, unit))
    plurals = {
        name + "s": unit for name, unit in units.items() if len(name) > 1 and name.isascii() and name[-1].isalpha()
    }
    return plurals | units


def _suffix(measure: str, factor: Fraction, name: str) -> str:
    if measure == "money" and factor == 1:
        return ""
    return name if measure in ("percent", "angle") else f" {name}"


UNITS = _read(_TABLE)

MAGNITUDES = {"hundred": "10^{2}", "thousand": "10^{3}", "million": "10^{6}", "billion": "10^{9}"}
MAGNITUDES |= {"trillion": "10^{12}", "百": "10^{2}", "千": "10^{3}", "万": "10^{4}", "百万": "10^{6}"}
MAGNITUDES |= {"千万": "10^{7}", "亿": "10^{8}", "万亿": "10^{12}"}
"""What a number is multiplied by, in LaTeX."""


def _any_of(names: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))


_IN_CHINESE = rf"(?:{_any_of(name for name in MAGNITUDES if not name.isascii())})(?![分米克瓦卡焦赫帕])"
MAGNITUDE = rf"(?:(?:{_any_of(name for name in MAGNITUDES if name.isascii())})\b|{_IN_CHINESE})"
"""A pattern of them: 千 is none in 千米, nor 百 in 百分之五."""


def _in_parts(measure: str) -> str:
    unit = rf"(?:{_any_of(name for name, unit in UNITS.items() if unit.measure == measure)})"
    more = rf"\d{{1,6}}(?:\.\d{{1,6}})?\s?{unit}(?![A-Za-z])"
    return rf"{unit}\.?(?:(?:,?\s+and|,|又)?\s?{more}){{1,2}}"


COMPOUND = rf"(?:{'|'.join(map(_in_parts, ('time', 'length', 'mass')))})"
"""A pattern of what follows the first number of `3 hours and 20 minutes`; `quantity` in `plain` adds it up."""

_BEFORE = late(r"\s*(-?)\s*(?:\\)?([$€£¥])\s*(?=[-\d.\\])")
_BEHIND = late(
    r"(?:\\[ ,;:!]|~|\s|\{\s*\})*(?:\\(?:text|mathrm|textrm|mathbf|textbf|operatorname)\s*\{\s*([^{}]{1,60}?)\s*\}"
    r"|([A-Za-z€£¥¢$°/]{1,20}|[\u4e00-\u9fff]{1,6}(?:/[\u4e00-\u9fff]{1,2})?|\\?[$%]|\^\\circ\s*[CF]?|\\?Ω|\\Omega))"
    r"(\s*\^\s*\{?\s*[23]\s*\}?)?\s*\.?\s*$"
)
_SQUARE = late(r"(square|sq\.?|cubic)\s+(\S+)", re.IGNORECASE)
_DIGIT = late(r"[\d}]\s*$")
_NAMES = frozenset("NJWVCK")  # which a variable might have: a unit stands apart from its number


def split_unit(text: str) -> tuple[str, Unit | None]:
    """An expression without its unit, and that unit; the expression as it is where it has no known one."""
    before = _BEFORE.match(text)
    if before:
        return before[1] + text[before.end() :], UNITS[before[2]]
    tail = text[-120:]
    behind = _BEHIND.search(tail)
    if behind is None:
        return text, None
    name, raised = (behind[1] or behind[2]).strip().removeprefix("\\"), behind[3]
    number = text[: len(text) - len(tail) + behind.start()]
    if square := _SQUARE.fullmatch(name):
        name, raised = square[2], "3" if square[1].lower() == "cubic" else "2"
    if name in _NAMES and behind.start(2) == behind.start():
        return text, None
    unit = _named("".join(name.split()), raised.strip(" ^{}") if raised else "")
    return (number, unit) if unit is not None and _DIGIT.search(number[-20:]) else (text, None)


def _named(name: str, raised: str) -> Unit | None:
    plain = UNITS.get(name) or UNITS.get(name.lower() if len(name) > 2 else name)
    if not raised or plain is None:
        return plain if not raised else None
    return UNITS.get(f"{plain.suffix.strip()}^{raised}")
