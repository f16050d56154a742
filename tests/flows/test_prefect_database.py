"""The database of a new server is made once a session: the first server makes it, others begin with a copy."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.prefect_database import new_database, take


def write(home: Path, word: str) -> None:
    """As a server that comes up, or that has runs."""
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        database.execute("create table if not exists words (word)")
        database.execute("insert into words values (?)", (word,))
        database.commit()


def words(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return [word for (word,) in database.execute("select word from words")]


def test_the_first_server_makes_it_and_others_begin_with_what_it_came_up_with(tmp_path: Path) -> None:
    kept, first, second, third = (tmp_path / name for name in ("kept", "first", "second", "third"))
    assert not take(kept, third)
    with new_database(kept, first):
        assert not (first / "prefect.db").exists()
        write(first, "came up")
    write(first, "a run of the first")
    with new_database(kept, second):
        assert words(second) == ["came up"]
    assert take(kept, third)
    assert words(third) == ["came up"]
    assert words(first) == ["came up", "a run of the first"]
