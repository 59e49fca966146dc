"""Expressions: every operator against its definition, types, canonical texts and hostile ones."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.features.expression_rows import SCHEMA, events_of_values, expected_value, rows
from tests.features.hostile import HOSTILE
from tests.features.streams import UNHURRIED
from worker.features.expressions import FUNCTIONS, OPERATORS, ExpressionError, parse
from worker.features.expressions.canonical import text_of
from worker.features.expressions.function import Function
from worker.features.expressions.syntax import tree_of
from worker.features.expressions.values import FALSE, MISSING, TRUE, UNKNOWN
from worker.features.expressions.zones import UTC

FIELDS_OF = {
    "number": ("$f", "$g", "$amount", "$items"),
    "boolean": ("$present", "$checked"),
    "text": ("$merchant", "$buyer", "$channel"),
    "time": ("$opened", "$closed", "$time"),
}
CONSTANTS = {"constant": (-1.0, 0.5, 20.0), "label": ("web", "ä", "x"), "zone": ("Europe/Paris",)}
ALL = {**FUNCTIONS, **OPERATORS}
FORMS = [(name, form) for name, function in ALL.items() for form in function.forms]


def written(name: str, operands: list[str]) -> str:
    """Return a call with its operands in parentheses, as somebody careful writes it."""
    if name in FUNCTIONS:
        return f"{name}({', '.join(operands)})"
    inner = [f"({operand})" for operand in operands]
    if name == "in":
        return f"{inner[0]} in [{', '.join(operands[1:])}]"
    sign = {"-x": "-", "not": "not "}.get(name, f" {name} ")
    return sign.join(inner) if len(inner) > 1 else sign + inner[0]


def literal(value: float | str) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def operands_of(kinds: tuple[str, ...], shift: int) -> list[str]:
    """Return an operand for each kind; ``shift`` chooses among the fields."""
    if kinds[-1] == "...":
        kinds = (*kinds[:-1], *kinds[-2:-1] * 2)
    texts, used = [], 0
    for i, kind in enumerate(kinds):
        if kind in CONSTANTS:
            texts.append(literal(CONSTANTS[kind][used]))
            used += 1
        else:
            texts.append(FIELDS_OF[kind][(i + shift) % len(FIELDS_OF[kind])])
    return texts


def plain(kind: str, values: Any) -> list[Any]:
    """Return an array of a kind as Python values, None where missing."""
    if kind == "number":
        return [None if math.isnan(v) else v for v in values.tolist()]
    if kind == "boolean":
        return [{FALSE: False, UNKNOWN: None, TRUE: True}[v] for v in values.tolist()]
    if kind == "text":  # all values that are not declared are one
        return [{"": None, "\x00": "another"}.get(v, v) for v in values.tolist()]
    return [None if v == MISSING else v for v in values.tolist()]


def same(a: Any, b: Any) -> bool:
    """Return whether two results are equal; numbers up to rounding of the logarithm."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or math.isclose(a, b, rel_tol=1e-15)
    return a is b or (a == b and type(a) is type(b))


@pytest.mark.parametrize(("name", "form"), FORMS, ids=[f"{n}{f[0]}" for n, f in FORMS])
@UNHURRIED
@given(found=rows(), shift=st.integers(0, 3))
def test_a_function_over_columns_equals_its_definition_row_by_row(
    name: str, form: Any, found: list[dict[str, Any]], shift: int
) -> None:
    """Of missing, zero, huge, tiny and negative values: exactly, and never infinite."""
    operands = operands_of(form[0], shift)
    expression = parse(written(name, operands), SCHEMA)
    assert expression.kind == form[1]
    with np.errstate(all="raise"):
        results = plain(form[1], expression.evaluate(events_of_values(found)))
    for row, result in zip(found, results, strict=True):
        expected = expected_value(ALL[name], operands, row)
        assert same(result, expected), (expression.canonical, row)


@UNHURRIED
@given(found=rows(), cut=st.integers(0, 8))
def test_where_a_batch_is_cut_makes_no_difference(found: list[dict[str, Any]], cut: int) -> None:
    """Bit for bit, of an expression with every kind of value in it."""
    text = "if($channel == 'web' or $opened < $time, log1p($f) / $amount, clip($g, -5, 5) % 3)"
    expression = parse(text, SCHEMA)
    whole = expression.column(events_of_values(found))
    parts = [found[:cut], found[cut:]]
    apart = [expression.column(events_of_values(part)) for part in parts if part]
    assert np.concatenate(apart).tobytes() == whole.tobytes()
    assert np.isfinite(whole).all()


@st.composite
def texts(draw: st.DrawFn, kind: str = "number", depth: int = 0) -> str:
    """Return an expression of a kind, with random parentheses and spaces."""
    leaves = st.sampled_from(FIELDS_OF[kind])
    if kind == "number":
        leaves |= st.sampled_from(("0", "1.5", "1e3", ".25", "-2"))
    if depth == 4 or draw(st.integers(0, 2)) == 0:
        return draw(leaves)
    name, (kinds, _) = draw(st.sampled_from([f for f in FORMS if f[1][1] == kind]))
    if kinds[-1] == "...":
        kinds = kinds[:-1] + kinds[-2:-1] * draw(st.integers(0, 2))
    constants = {kind: iter(values) for kind, values in CONSTANTS.items()}
    operands = [
        literal(next(constants[k])) if k in CONSTANTS else draw(texts(k, depth + 1)) for k in kinds
    ]
    text = written(name, operands)
    return f"( {text})" if draw(st.booleans()) else text


@UNHURRIED
@given(text=st.sampled_from(("number", "boolean")).flatmap(lambda kind: texts(kind)))
def test_the_canonical_text_means_the_same_and_is_its_own_canonical_text(text: str) -> None:
    """So equal hashes are equal meanings, however a file was laid out."""
    if len(text) > 400:
        return
    expression = parse(text, SCHEMA)
    again = parse(expression.canonical, SCHEMA)
    assert again.canonical == expression.canonical
    assert shape(tree_of(expression.canonical)) == shape(tree_of(text))


def shape(node: Any) -> Any:
    """Return a tree without its columns."""
    if hasattr(node, "arguments"):
        return node.name, tuple(map(shape, node.arguments))
    return getattr(node, "value", None), getattr(node, "name", None)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("$a-($b-$c)-$d", "$a - ($b - $c) - $d"),
        ("(($a*$b))+$c", "$a * $b + $c"),
        ("-($a+1)", "-($a + 1)"),
        ("- -1", "1"),
        ("--$a", "--$a"),
        ("not(not $a and $b)", "not (not $a and $b)"),
        ("(not $a) and $b", "not $a and $b"),
        ("not $a < 3", "not $a < 3"),
        ("$a not in (1)", "not $a in [1]"),
        ("($a < $b) == ($c < $d)", "($a < $b) == ($c < $d)"),
        ("$a and ($b or $c) and true", "$a and ($b or $c) and true"),
        ("$a == 'say \"x\"'", "$a == 'say \"x\"'"),
        ("\n $a\t<\r\n1e3 ", "$a < 1000"),
    ],
)
def test_canonical_texts_by_example(text: str, canonical: str) -> None:
    """Few parentheses, one space, numbers in their shortest form."""
    assert text_of(tree_of(text)) == canonical


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 4 / 2", 5.0),
        ("-2 * -3 % 4", 2.0),
        ("-7 % 3", 2.0),
        ("1 / 0", None),
        ("0 / 0", None),
        ("5 % 0", None),
        ("log(0)", None),
        ("log(-1)", None),
        ("log1p(-1)", None),
        ("sqrt(-1)", None),
        ("1e308 * 10", None),
        ("1e308 + 1e308 - 1e308", None),
        ("coalesce(1 / 0, 7)", 7.0),
        ("if(1 / 0 > 1, 1, 2)", 2.0),
        ("if(not 1 / 0 > 1, 1, 2)", 2.0),
        ("if(1 / 0 > 1 or true, 1, 2)", 1.0),
        ("round(2.5) + round(3.5)", 6.0),
        ("bucket(10, 10, 50)", 1.0),
        ("clip(9, 0, 5)", 5.0),
        ("min(1 / 0, 3)", None),
    ],
)
def test_results_by_example(text: str, value: float | None) -> None:
    """What has no finite result is missing; a condition that is missing takes the second way."""
    found = plain("number", parse(text, SCHEMA).evaluate(events_of_values([{}, {}])))
    assert found == [value, value]


@pytest.mark.parametrize(
    ("text", "column", "expected", "hint"),
    [
        ("$amuont", 1, "a declared field", "did you mean $amount?"),
        ("1 + $tme", 5, "a declared field", "did you mean $time?"),
        ("huor($time)", 1, "a function", "did you mean hour?"),
        ("$channel == 'wbe'", 13, "a declared value of $channel (web, pos, ä", "did you mean web?"),
        ("hour($time, 'Europe/Pariss')", 13, "a time zone", "did you mean Europe/Paris?"),
        ("$amount + $present", 9, "number + number", "if(X, 1, 0)"),
        ("$amount and true", 9, "boolean and boolean", "write X > 0"),
        ("$time > 3", 7, "number > number or time > time", "in seconds"),
        ("$amount == '3'", 9, "number == number or", ""),
        ("log($amount, 2)", 1, "log(number)", ""),
        ("clip($amount, $f, 3)", 1, "clip(number, a number written out", ""),
        ("clip($amount, 5, 3)", 18, "numbers that ascend", ""),
        ("bucket($amount, 1, 1)", 20, "numbers that ascend", ""),
        ("$amount = 3", 9, "a field such as", "write =="),
        ("1 < $amount < 3", 13, "one comparison", "join two comparisons by and"),
        ("$amount ** 2", 10, "a field such as", ""),
        ("$amount > 1 && $f > 1", 13, "a field such as", "write and"),
        ("amount > 1", 1, "a call", "a field is written $amount"),
        ("($amount", 9, '")"', ""),
        ("$amount)", 8, "an operator or the end", ""),
        ("$channel == ''", 13, "a text of printable characters", "is_missing(X)"),
        ("1e999", 1, "a finite number", ""),
        ("", 1, "a field such as", ""),
    ],
)
def test_a_mistake_is_named_with_its_column_and_a_hint(
    text: str, column: int, expected: str, hint: str
) -> None:
    """In words of the language, not of Python."""
    with pytest.raises(ExpressionError) as caught:
        parse(text, SCHEMA)
    assert caught.value.column == column, str(caught.value)
    assert caught.value.expected.startswith(expected)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_ends_in_an_error_at_once(text: str) -> None:
    """Whatever it tries, it is text that is not of the language."""
    start = time.perf_counter()
    with pytest.raises(ExpressionError) as caught:
        parse(text, SCHEMA)
    assert time.perf_counter() - start < 0.5
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


PIECES = st.sampled_from(
    [
        *FUNCTIONS, *OPERATORS, "(", ")", "[", "]", ",", "$", ".", "__class__", "lambda", "**", ":",
        "$amount", "$time", "'", '"', "0", "9" * 30, "1e9", "\\", "\x00", "ß", "{", "}", "@", ";",
        "import", "__import__", "eval", "if", "else", "for", "await", "\n", " ", "\u2028", "\ud800",
    ]
)  # fmt: skip


@UNHURRIED
@given(st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=600))
@example("(" * 250 + ")" * 250)
@example("not " * 125)
@example("-" * 499 + "1")
@example("+".join("1" * 250))
@example("if(" * 100)
@example("$a." * 100)
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    """No other exception, whatever the characters are; and what is accepted runs."""
    try:
        expression = parse(text, SCHEMA)
    except ExpressionError:
        return
    expression.evaluate(events_of_values([{}]))


def test_missing_is_the_stated_value_in_x_and_false_in_a_filter() -> None:
    """0.0 for a number or a boolean."""
    events = events_of_values([{}])
    assert parse("$f + 1", SCHEMA).column(events).tolist() == [0.0]
    assert parse("$f > 1", SCHEMA).column(events).tolist() == [0.0]
    assert parse("not $f > 1", SCHEMA).mask(events).tolist() == [False]
    assert parse("is_missing($f)", SCHEMA).mask(events).tolist() == [True]


def test_an_expression_knows_its_fields() -> None:
    """Sorted, each once, the event time left out."""
    expression = parse("if($present, $f, $amount) + hour($time) + $f", SCHEMA)
    assert expression.fields == ("amount", "f", "present")


def test_every_function_is_described_by_its_docstring() -> None:
    """One sentence that says what it is, and an example."""
    for function in ALL.values():
        assert issubclass(function, Function)
        assert ">>>" in (function.__doc__ or ""), function
    assert len({f.name for f in ALL.values()}) == len(ALL)
    assert UTC.name == "UTC"
