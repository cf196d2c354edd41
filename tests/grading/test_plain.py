"""Notations of one number are one key, and quantities agree as people say they do."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.grading.plain import is_mathematical, key, latex, name_of, quantity, spelled, value

FRACTIONS = st.fractions(max_denominator=1000).filter(lambda x: abs(x) < 10**9)


@given(FRACTIONS)
def test_a_number_is_one_key_in_every_notation(number: Fraction) -> None:
    up, down = number.numerator, number.denominator
    spellings = [
        f"{up}/{down}",
        rf"\frac{{{up}}}{{{down}}}",
        rf"\(\dfrac{{{up}}}{{{down}}}\)",
        f"x = {up}/{down}",
        spelled(number),
    ]
    assert {key(spelling) for spelling in spellings} == {spelled(number)}
    assert value(spelled(number)) == number


@given(st.integers(-(10**12), 10**12), st.integers(-30, 30))
def test_powers_of_ten_are_exact(digits: int, power: int) -> None:
    wanted = spelled(Fraction(digits) * Fraction(10) ** power)
    spellings = [
        f"{digits}e{power}",
        rf"{digits} \times 10^{{{power}}}",
        rf"{digits}\cdot 10^{power}",
        f"{digits}×10^({power})",
    ]
    if digits >= 0:
        assert {key(spelling) for spelling in spellings} == {wanted}
    assert key(rf"{digits} \times 10^{{{power}}}") == wanted
    assert key(wanted) == wanted
    if abs(digits) >= 1000:
        assert key(f"{digits:,}") == str(digits)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("√2", r"\sqrt{2}"),
        ("sqrt(2*(3+1))", r"\sqrt{2 \cdot (3+1)}"),
        ("√(-√5)", r"\sqrt{-\sqrt{5}}"),
        ("∛27", r"\sqrt[3]{27}"),
        ("x**2", "x^{2}"),
        ("x^10", "x^{10}"),
        ("2*pi", r"2 \cdot \pi"),
        ("10⁻³⁴", "10^{-34}"),
        ("x₁", "x_{1}"),
        ("1½", r"1\frac{1}{2}"),
        ("0.1(6)", r"\frac{1}{6}"),
        ("x=1或x=2", r"x=1 \text{ or } x=2"),
        ("（1，2）", "(1,2)"),
        ("≤", r"\le"),
        (r"\left(1,2\right)", "(1,2)"),
        (r"\sin 30^\circ", r"\sin(\frac{30 \pi}{180})"),
        ("exp(2)", "e^{2}"),
        ("sin(x)+1", r"\sin(x)+1"),
        ("3+4*I", "3+4i"),
        ("1.6 x 10^-19", r"1.6\times 10^{-19}"),
        ("spin", "spin"),
    ],
)
def test_notations_become_latex(text: str, said: str) -> None:
    assert latex(text) == said


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ("5 km", "5 m", False),
        ("5 km", "5000 m", True),
        ("5 km", "5", True),
        ("5 kg", "5 km", False),
        ("1.5 hours", "90 minutes", True),
        ("16 square meters", r"16\text{ m}^2", True),
        ("16 m^2", "16 m", False),
        ("$5", "5 dollars", True),
        ("€5", "$5", False),
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("50%", "5", False),
        ("12 apples", "12", True),
        (r"90^\circ", "90", True),
        ("3 million", "3,000,000", True),
    ],
)
def test_quantities(first: str, second: str, agree: bool) -> None:
    ours, theirs = quantity(latex(first)), quantity(latex(second))
    assert ours
    assert theirs
    assert ours.agrees(theirs) == theirs.agrees(ours) == agree


@pytest.mark.parametrize(
    "text", ["13 pm", "3 squared", "2nd", "x", "1/0", "1e9999", "12 or 13", "", "9" * 401, "1.2.3", "٣/x"]
)
def test_what_is_no_quantity(text: str) -> None:
    assert quantity(latex(text)) is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("x^2", True), ("1/3", True), (r"\pi", True), ("x=1,x=2", True), ("2^{60}", True), ("Paris", False), ("B", False),
     ("17+25=42", False), ("May 4", True), ("July 4", False), ("x\ny+1", False), ("1+" * 101, False)],
)  # fmt: skip
def test_what_is_compared_as_mathematics(text: str, is_one: bool) -> None:
    assert is_mathematical(text) is is_one


@pytest.mark.parametrize(
    ("text", "name"),
    [("x = 5", "x"), ("5 = x", "x"), ("x_5 = 5", "x_5"), ("f(x) = 5", "f(x)"), ("5", None), ("17+25=42", None)],
)
def test_the_name_of_a_value(text: str, name: str | None) -> None:
    assert name_of(latex(text)) == name
