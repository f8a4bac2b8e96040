"""Conditions of a query: a small part of SQL, read into bound parameters, that can do nothing but choose rows.

A text is never given to the database. It is cut into words, parsed by the grammar below, its names are looked up among
the columns that may be asked for, and its values become parameters; whatever else it says is refused in one line.

    condition   = both { OR both }              both  = negated { AND negated }
    negated     = NOT negated | comparison      bits  = sum { (& | '|') sum }
    comparison  = bits [ = == != <> < <= > >= bits | [NOT] BETWEEN bits AND bits | [NOT] IN (value, ...)
                       | [NOT] LIKE 'text' | IS [NOT] NULL ]
    sum         = product { (+ -) product }     product = sign { (* / %) sign }
    sign        = (+ -) sign | value | column | ABS(condition) | (condition)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from survey_io.errors import OptionError

__all__ = ["parse_where"]

LONGEST, DEEPEST, MOST_WORDS = 2000, 40, 400
_WORD = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<name>[A-Za-z_]\w*)
      | (?P<text>'(?:[^']|'')*')
      | (?P<sign><=|>=|<>|!=|==|[-+*/%&|()=<>,])
    )""",
    re.VERBOSE | re.ASCII,
)
_COMPARISONS = {"=", "==", "!=", "<>", "<", "<=", ">", ">="}
_KEYWORDS = {"AND", "OR", "NOT", "BETWEEN", "IN", "LIKE", "IS", "NULL", "TRUE", "FALSE", "ABS"}


@dataclass(frozen=True)
class _Value:
    """An expression of the database and what kind of value it has: truth, text, integer or number."""

    sql: Any
    kind: str

    @property
    def numeric(self) -> bool:
        return self.kind in ("integer", "number")


def parse_where(text: str, columns: Mapping[str, sa.ColumnElement[Any]]) -> sa.ColumnElement[bool]:
    """Read a condition as an expression of the database in which every value is a parameter.

    Parameters
    ----------
    text : str
        As ``p_real > 0.9 and snr between 5 and 20 and name like 'SKS J00%'``; see the grammar above. Text stands in
        single quotes and is compared with LIKE whatever its case; dividing by 0 gives a value that is not known,
        for which no comparison holds.
    columns : mapping of str to a column
        What may be asked for.

    Returns
    -------
    sqlalchemy expression

    Raises
    ------
    OptionError
        For anything else than a condition on these columns, in one line.
    """
    return _Parser(text, columns).read()


class _Parser:
    def __init__(self, text: str, columns: Mapping[str, sa.ColumnElement[Any]]):
        self._text, self._columns, self._depth = text, columns, 0
        self._words = self._cut(text)
        self._at = 0

    def read(self) -> sa.ColumnElement[bool]:
        value = self._condition()
        if self._at < len(self._words):
            raise self._refuse(f"expected the end or AND, OR, got {self._words[self._at][1]!r}")
        if value.kind != "truth":
            raise self._refuse("expected a comparison, as snr > 5, got a value alone")
        return value.sql

    def _cut(self, text: str) -> list[tuple[str, str]]:
        if len(text) > LONGEST:
            raise OptionError(f"--where: expected at most {LONGEST} characters, got {len(text)}; ask for less at once")
        words, at = [], 0
        while text[at:].strip():
            found = _WORD.match(text, at)
            if found is None:
                raise self._refuse(f"{text[at:].strip()[:20]!r} is not part of a condition")
            words.append((found.lastgroup or "", found.group(found.lastgroup or 0)))
            at = found.end()
        if not words:
            raise OptionError("--where: expected a condition, as \"p_real > 0.9 and snr > 5\", got nothing")
        if len(words) > MOST_WORDS:
            raise OptionError(f"--where: expected at most {MOST_WORDS} words, got {len(words)}; ask a simpler question")
        return words

    def _refuse(self, reason: str) -> OptionError:
        example = "p_real > 0.9 and snr > 5"
        return OptionError(f'--where {self._text[:80]!r}: {reason}; it may compare columns, as "{example}"')

    def _take(self, *wanted: str) -> str | None:
        """The next word when it is one of these keywords or signs."""
        if self._at < len(self._words):
            sort, word = self._words[self._at]
            word = word.upper() if sort == "name" else word
            if sort in ("name", "sign") and word in wanted:
                self._at += 1
                return word
        return None

    def _need(self, sign: str) -> None:
        if self._take(sign) is None:
            raise self._refuse(f"expected {sign!r}, got {self._peek()}")

    def _peek(self) -> str:
        return repr(self._words[self._at][1]) if self._at < len(self._words) else "the end"

    def _condition(self) -> _Value:
        self._depth += 1
        if self._depth > DEEPEST:
            raise OptionError(f"--where: expected at most {DEEPEST} brackets within each other; ask a simpler question")
        value = self._chain("OR", sa.or_, lambda: self._chain("AND", sa.and_, self._negated))
        self._depth -= 1
        return value

    def _chain(self, word: str, join: Any, part: Any) -> _Value:
        values = [part()]
        while self._take(word):
            values.append(part())
        if len(values) == 1:
            return values[0]
        if any(value.kind != "truth" for value in values):
            raise self._refuse(f"expected comparisons on both sides of {word}")
        return _Value(join(*(value.sql for value in values)), "truth")

    def _negated(self) -> _Value:
        count = 0
        while self._take("NOT"):
            count += 1
        value = self._comparison()
        if count and value.kind != "truth":
            raise self._refuse("expected a comparison after NOT")
        return _Value(sa.not_(value.sql), "truth") if count % 2 else value

    def _comparison(self) -> _Value:
        left = self._bits()
        if (sign := self._take(*_COMPARISONS)) is not None:
            right = self._bits()
            self._alike(left, right)
            a, b = left.sql, right.sql
            compared = {
                "=": lambda: a == b, "!=": lambda: a != b, "<": lambda: a < b, "<=": lambda: a <= b,
                ">": lambda: a > b, ">=": lambda: a >= b,
            }[{"==": "=", "<>": "!="}.get(sign, sign)]()  # fmt: skip
            return _Value(compared, "truth")
        if self._take("IS"):
            negative = self._take("NOT") is not None
            self._need("NULL")
            return _Value(left.sql.is_not(None) if negative else left.sql.is_(None), "truth")
        negative = self._take("NOT") is not None
        if self._take("BETWEEN"):
            low = self._bits()
            self._need("AND")
            high = self._bits()
            self._alike(left, low)
            self._alike(left, high)
            chosen = left.sql.between(low.sql, high.sql)
        elif self._take("IN"):
            self._need("(")
            values = [self._sign()]
            while self._take(","):
                values.append(self._sign())
            self._need(")")
            for value in values:
                self._alike(left, value)
            chosen = sa.or_(*(left.sql == value.sql for value in values))
        elif self._take("LIKE"):
            chosen = self._like(left)
        elif negative:
            raise self._refuse(f"expected BETWEEN, IN or LIKE after NOT, got {self._peek()}")
        else:
            return left
        return _Value(sa.not_(chosen) if negative else chosen, "truth")

    def _like(self, left: _Value) -> sa.ColumnElement[bool]:
        sort, word = self._words[self._at] if self._at < len(self._words) else ("", "")
        if left.kind != "text" or sort != "text":
            raise self._refuse("LIKE compares a column of text with a text in single quotes")
        self._at += 1
        pattern = word[1:-1].replace("''", "'").lower()
        # Each % multiplies the ways in which a pattern may match.
        if len(pattern) > 100 or pattern.count("%") > 4:
            raise self._refuse("LIKE takes at most 100 characters and 4 of %")
        return sa.func.lower(left.sql).like(sa.literal(pattern.replace("\\", "\\\\")), escape="\\")

    def _alike(self, left: _Value, right: _Value) -> None:
        if left.kind != right.kind and not (left.numeric and right.numeric):
            raise self._refuse(f"expected two values of one kind, got {left.kind} and {right.kind}")

    def _operate(self, signs: tuple[str, ...], part: Any) -> _Value:
        value = part()
        while (sign := self._take(*signs)) is not None:
            value = self._compute(sign, value, part())
        return value

    def _bits(self) -> _Value:
        return self._operate(("&", "|"), lambda: self._operate(("+", "-"), self._product))

    def _product(self) -> _Value:
        return self._operate(("*", "/", "%"), self._sign)

    def _compute(self, sign: str, left: _Value, right: _Value) -> _Value:
        if not (left.numeric and right.numeric):
            raise self._refuse(f"expected numbers on both sides of {sign!r}, got {left.kind} and {right.kind}")
        if sign in "&|%":
            if {left.kind, right.kind} != {"integer"}:
                raise self._refuse(f"expected whole numbers on both sides of {sign!r}, as flags & 1")
            if sign == "%":
                return _Value(left.sql % sa.func.nullif(right.sql, 0), "integer")
            joined = left.sql.bitwise_and(right.sql) if sign == "&" else left.sql.bitwise_or(right.sql)
            return _Value(joined, "integer")
        # In floating point: whole numbers overflow, and divide, differently from database to database.
        a, b = (sa.cast(one.sql, sa.Double) for one in (left, right))
        if sign == "/":
            return _Value(a / sa.func.nullif(b, 0.0), "number")
        return _Value({"+": a + b, "-": a - b, "*": a * b}[sign], "number")

    def _sign(self) -> _Value:
        negative = False
        while (sign := self._take("+", "-")) is not None:
            negative ^= sign == "-"
        value = self._atom()
        if not negative:
            return value
        if not value.numeric:
            raise self._refuse(f"expected a number after '-', got {value.kind}")
        return _Value(-value.sql, value.kind)

    def _atom(self) -> _Value:
        if self._take("("):
            value = self._condition()
            self._need(")")
            return value
        if self._take("ABS"):
            self._need("(")
            value = self._condition()
            self._need(")")
            if not value.numeric:
                raise self._refuse(f"expected a number in ABS, got {value.kind}")
            return _Value(sa.func.abs(value.sql), value.kind)
        if (truth := self._take("TRUE", "FALSE")) is not None:
            return _Value(sa.literal(truth == "TRUE", sa.Boolean), "truth")
        if self._at >= len(self._words):
            raise self._refuse("it ends too early")
        sort, word = self._words[self._at]
        self._at += 1
        if sort == "number":
            return self._number(word)
        if sort == "text":
            return _Value(sa.literal(word[1:-1].replace("''", "'"), sa.Text), "text")
        if sort == "name":
            return self._column(word)
        raise self._refuse(f"expected a column or a value, got {word!r}")

    def _number(self, word: str) -> _Value:
        if word.isdigit() and int(word) < 2**63:
            return _Value(sa.literal(int(word), sa.BigInteger), "integer")
        number = float(word)
        if number == float("inf"):
            raise self._refuse(f"expected a number below 1.8e308, got {word!r}")
        return _Value(sa.literal(number, sa.Double), "number")

    def _column(self, word: str) -> _Value:
        if word.upper() in _KEYWORDS:
            hint = "; to find what is missing write IS NULL" if word.upper() == "NULL" else ""
            raise self._refuse(f"{word!r} cannot stand here{hint}")
        column = self._columns.get(word.lower())
        if column is None:
            known = ", ".join(sorted(self._columns))
            raise OptionError(f"--where: there is no column {word[:40]!r}; there are {known}")
        kinds = ((sa.Boolean, "truth"), (sa.Integer, "integer"), (sa.Numeric, "number"), (sa.Float, "number"))
        kind = next((name for sort, name in kinds if isinstance(column.type, sort)), "text")
        return _Value(column, kind)
