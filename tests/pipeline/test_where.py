"""Conditions of a query: they choose the rows that they say, and can do nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa

from pipeline.survey.where import parse_where
from survey_io.errors import OptionError

ROWS = [
    {"id": 1, "name": "SKS J0001", "snr": 7.5, "p_real": 0.95, "flags": 0, "kind": "image", "current": True,
     "freq": None},
    {"id": 2, "name": "SKS J0002", "snr": 4.0, "p_real": 0.5, "flags": 3, "kind": "cube", "current": True,
     "freq": 1.4e9},
    {"id": 3, "name": "O'Neil 100%", "snr": 20.0, "p_real": None, "flags": 8, "kind": "cube", "current": False,
     "freq": 1.3e9},
]  # fmt: skip


@pytest.fixture(scope="module")
def table() -> sa.Table:
    return sa.Table(
        "source", sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text), sa.Column("snr", sa.Double),
        sa.Column("p_real", sa.Double), sa.Column("flags", sa.BigInteger), sa.Column("kind", sa.Text),
        sa.Column("current", sa.Boolean), sa.Column("freq", sa.Double),
    )  # fmt: skip


@pytest.fixture(scope="module")
def chosen(table: sa.Table):
    engine = sa.create_engine("sqlite://")
    table.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert(), ROWS)
        connection.execute(sa.text("CREATE TABLE secret (word TEXT)"))

    def choose(text: str) -> list[int]:
        query = sa.select(table.c.id).where(parse_where(text, dict(table.c))).order_by(table.c.id)
        with engine.connect() as connection:
            return list(connection.execute(query).scalars())

    choose.engine = engine
    return choose


@pytest.mark.parametrize(
    "text, expected",
    [
        ("p_real > 0.9 and snr > 5", [1]),
        ("snr > 5 OR kind = 'cube' AND flags = 3", [1, 2, 3]),
        ("(snr > 5 OR kind = 'cube') AND flags <> 0", [2, 3]),
        ("not snr > 5", [2]),
        ("not not snr > 5", [1, 3]),
        ("snr between 4 and 8", [1, 2]),
        ("snr not between 4 and 8", [3]),
        ("id in (1, 3, 99)", [1, 3]),
        ("kind not in ('cube')", [1]),
        ("freq is null", [1]),
        ("freq is not null and freq < 1.35e9", [3]),
        ("p_real > 0 or p_real <= 0", [1, 2]),
        ("flags & 2 = 2", [2]),
        ("flags & 2 | 8 = 8", [1, 3]),
        ("flags % 2 == 1", [2]),
        ("flags % 0 = 0", []),
        ("snr / (flags - flags) > 0 or id = 1", [1]),
        ("abs(-snr) * 2 - 1 > 10", [1, 3]),
        ("-snr < -5 and +snr > .5e1", [1, 3]),
        ("current", [1, 2]),
        ("current = false", [3]),
        ("SNR>=4.0 and snr<=4.", [2]),
        ("name = 'O''Neil 100%'", [3]),
        ("name like 'sks j%'", [1, 2]),
        ("name not like 'SKS _0001'", [2, 3]),
        ("name like '%100\\%'", []),
        ("name = '; drop table source; --'", []),
        ("9223372036854775807 > id", [1, 2, 3]),
        ("99999999999999999999 > id", [1, 2, 3]),
        ("7 / 2 = 3.5", [1, 2, 3]),
    ],
)
def test_a_condition_chooses_rows(chosen, text: str, expected: list[int]) -> None:
    assert chosen(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "1=1; DROP TABLE source", "1=1 -- all", "1=1 /* x */", "id = 1 UNION SELECT word FROM secret",
        "id = (SELECT max(id) FROM source)", "EXISTS (SELECT 1)", "id IN (SELECT 1)", "load_extension('x')",
        "randomblob(1000000000) is not null", "name = 'a' || (select word from secret)", "sqlite_version() > 0",
        "pg_sleep(100) is null", "source.id = 1", "\"id\" = 1", "`id` = 1", "[id] = 1", "id = 1 COLLATE nocase",
        "id = :x", "id = ?", "id = $1", "id = %(x)s", "id = 1::text", "cast(id as text) = '1'",
        "case when 1 then 1 end", "name GLOB '*'", "name REGEXP '(a+)+'", "name ~ 'a'", "word = 'x'", "rowid = 1",
        "id = 1 limit 1",
        "id = 1 order by id", "id = 0x10", "id = 1e999", "name = 'never closed", "id = 1) or (1 = 1", "((id = 1)",
        "id =", "= 1", "", "   ", "id", "5", "'x'", "id > 'a'", "name > 5", "name + 1 > 0", "snr & 1 = 1",
        "kind and snr", "not id", "id = null", "null is null", "id is 5", "id between 1", "id in ()", "id not 5",
        "name like name",
        "id like '1'", "-name = 'x'", "abs(name) = 'x'", "id = 1 and", "id\x00 = 1", "snr > 5é", "ｉd = 1", "id = １",
        "name like '%%%%%'", "current + 1 > 0", "id == = 1", "id = 1 2", "id < 2 < 3",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(chosen, text: str) -> None:
    with pytest.raises(OptionError) as caught:
        chosen(text)
    assert "--where" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["(" * 5000 + "id" + ")" * 5000, "id = 1" + " or id = 1" * 300, "-" * 1999 + "1 = id",
                                  "(" * 60 + "id = 1" + ")" * 60, "not " * 450 + "id = 1"])  # fmt: skip
def test_what_is_too_long_or_too_deep_is_refused(chosen, text: str) -> None:
    with pytest.raises(OptionError, match="at most"):
        chosen(text)


def test_values_are_parameters_not_text(table: sa.Table) -> None:
    expression = parse_where("name = 'x'' or 1=1 --' and snr > 12345.5", dict(table.c))
    compiled = expression.compile(dialect=sa.dialects.sqlite.dialect())
    assert "1=1" not in str(compiled) and "12345" not in str(compiled)
    assert set(compiled.params.values()) == {"x' or 1=1 --", 12345.5}


def test_random_words_are_either_a_condition_or_refused(chosen, table: sa.Table) -> None:
    rng = np.random.default_rng(7)
    words = ["id", "snr", "name", "current", "and", "or", "not", "(", ")", "=", "<", "+", "-", "&", "/", "'x'", "5",
             "2.5", "is", "null", "in", ",", "like", "between", "abs", "select", ";", "--", "true"]  # fmt: skip
    accepted = 0
    for _ in range(4000):
        text = " ".join(rng.choice(words, rng.integers(1, 9)))
        try:
            chosen(text)
            accepted += 1
        except OptionError:
            pass
    assert accepted > 10
    with chosen.engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 3
