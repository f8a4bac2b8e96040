"""Many rows at once: PostgreSQL by COPY, SQLite by one prepared statement."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.csv as csv
from sqlalchemy import Connection

__all__ = ["insert"]

# Rows that are turned into text or tuples at a time: bounds the memory.
_BATCH = 20_000


def insert(connection: Connection, table: str, data: pa.Table) -> None:
    """Insert all rows of a table of arrow columns, in the transaction of the connection.

    Parameters
    ----------
    connection : Connection
    table : str
        Name of the table in the database: of this package, never of a user.
    data : pyarrow.Table
        Columns by their names in the database.
    """
    names = ", ".join(f'"{name}"' for name in data.column_names)
    if connection.dialect.name == "postgresql":
        cursor = connection.connection.driver_connection.cursor()
        # In CSV null is an empty field and the empty text is quoted, as pyarrow writes them.
        with cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN WITH (FORMAT csv)") as copy:
            for batch in data.to_batches(max_chunksize=_BATCH):
                sink = io.BytesIO()
                csv.write_csv(batch, sink, csv.WriteOptions(include_header=False))
                copy.write(sink.getbuffer())
        return
    marks = ", ".join("?" * data.num_columns)
    cursor = connection.connection.driver_connection.cursor()
    for batch in data.to_batches(max_chunksize=_BATCH):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
