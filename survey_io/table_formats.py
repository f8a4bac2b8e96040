"""How a catalogue is laid out in each file format; ``catalogue`` decides where it goes.

Writers take (table, parameters, open binary file). Units, descriptions and UCDs travel in the place that the
format has for them. The bodies of VOTable and ECSV are written from whole columns: astropy's writers go row
by row, which takes 9 s and 2 s for 200,000 rows of 14 columns.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from astropy import units as u
from astropy.io import fits, votable
from astropy.table import Table

from .quiet import quiet

__all__ = ["READERS", "SUFFIXES", "WRITERS"]

Writer = Callable[[Table, Mapping[str, Any], IO[bytes]], None]

_PREFIX = "SKYSIFT"
_VOTABLE_TYPES = {
    "b1": "boolean",
    "u1": "unsignedByte",
    "i2": "short",
    "i4": "int",
    "i8": "long",
    "f4": "float",
    "f8": "double",
}
_ROWS_PER_BLOCK = 30_000
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Texts that a spreadsheet takes for a formula, which may run a command; a number with its sign is none.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d .:+-]*$)")


def _plain(table: Table) -> Table:
    """The table with ordinary columns: masked floats become NaN, so that no format needs masks for them."""
    return _unmasked(Table(table, copy=False))


def write_fits(table: Table, parameters: Mapping[str, Any], file: IO[bytes]) -> None:
    """Binary table with TUNIT, TUCD, TCOMM; parameters as HIERARCH keywords, too long ones as HISTORY."""
    bare = Table(_plain(table), copy=False)
    bare.meta = {}
    hdu = fits.table_to_hdu(bare)
    hdu.name = "CATALOGUE"
    header = hdu.header
    for number, name in enumerate(table.colnames, start=1):
        column = table[name]
        if column.meta.get("ucd"):
            header.set(f"TUCD{number}", column.meta["ucd"], after=f"TFORM{number}")
        if column.description:
            header.set(f"TCOMM{number}", column.description, after=f"TFORM{number}")
    header["RADESYS"] = ("ICRS", "frame of ra and dec")
    for key, value in parameters.items():
        text = value if isinstance(value, (bool, int, float, str)) else json.dumps(value, default=str)
        card = None
        if isinstance(text, str) or np.isfinite(text):
            try:
                card = fits.Card(f"HIERARCH {_PREFIX} {key}", text)
                card.verify("exception")
                fits_in_card = len(card.image) <= 80 and "\n" not in str(text)
            except (ValueError, fits.VerifyError):
                fits_in_card = False
        if card is not None and fits_in_card:
            header.append(card, end=True)
        else:
            header.add_history(f"{_PREFIX} {key} = {json.dumps(text)}")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)


def read_fits(path: Path) -> Table:
    """Read the first table of a FITS file; ``meta["parameters"]`` holds what the writer was given."""
    with fits.open(path) as hdus:
        hdu = next((hdu for hdu in hdus if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))), None)
        if hdu is None:
            raise ValueError("the file has no table")
        header = hdu.header.copy()
        table = Table.read(hdu, character_as_bytes=False)
    parameters = {}
    for key, value in header.items():
        if key.startswith(f"{_PREFIX} "):
            text = isinstance(value, str) and value.startswith(("[", "{", "null"))
            parameters[key[len(_PREFIX) + 1 :].lower()] = _value(value) if text else value
    table.meta = {"parameters": parameters} if parameters else {}
    for number, name in enumerate(table.colnames, start=1):
        if table[name].dtype.kind in "iuf":
            # FITS is big-endian, which torch, pandas and numba refuse.
            table[name] = table[name].astype(table[name].dtype.newbyteorder("="))
        column = table[name]
        if header.get(f"TCOMM{number}"):
            column.description = header[f"TCOMM{number}"]
        if header.get(f"TUCD{number}"):
            column.meta["ucd"] = header[f"TUCD{number}"]
    return _unmasked(table)


def write_votable(
    table: Table, parameters: Mapping[str, Any], file: IO[bytes], *, closing: Mapping[str, Any] | None = None
) -> None:
    """VOTable 1.4 with ICRS as its COOSYS, in BINARY2; `closing` are INFO elements behind the table."""
    table = _plain(table)
    fields, layout, values = [], [], []
    for name in table.colnames:
        column = table[name]
        data = np.ma.getdata(np.asarray(column))
        if data.ndim != 1:
            raise ValueError(f"column {name!r} has {data.ndim} dimensions, a catalogue's columns have one")
        if data.dtype.kind in "USO":
            data = np.char.encode(data.astype(str), "ascii", "replace")
            data = data.astype(f"S{max(data.dtype.itemsize, 1)}")
            kind = f'datatype="char" arraysize="{data.dtype.itemsize}"'
        elif data.dtype.kind == "b":
            data = np.where(data, b"T", b"F")
            kind = 'datatype="boolean"'
        else:
            if data.dtype.str[1:] not in _VOTABLE_TYPES:
                data = data.astype("f4" if data.dtype.kind == "f" else "i8")
            kind = f'datatype="{_VOTABLE_TYPES[data.dtype.str[1:]]}"'
        attributes = [f"name={quoteattr(name)}", kind]
        if column.unit is not None and column.unit.to_string():
            attributes.append(f"unit={quoteattr(_vounit(column.unit))}")
        ucd = column.meta.get("ucd", "")
        if ucd:
            attributes.append(f"ucd={quoteattr(ucd)}")
        if "pos.eq" in ucd or ucd.startswith("POS_EQ_"):
            attributes.append('ref="icrs"')
        text = f"<DESCRIPTION>{escape(column.description)}</DESCRIPTION>" if column.description else ""
        fields.append(f"   <FIELD {' '.join(attributes)}>{text}</FIELD>")
        layout.append((name, data.dtype.newbyteorder(">") if data.dtype.kind in "iuf" else data.dtype))
        values.append((name, data, np.ma.getmaskarray(column) if hasattr(column, "mask") else None))
    infos, closing_infos = (
        [f"  <INFO name={quoteattr(str(key))} value={quoteattr(_text(value))}/>" for key, value in given.items()]
        for given in (parameters, closing or {})
    )
    head = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">',
        ' <RESOURCE type="results">',
        '  <COOSYS ID="icrs" system="ICRS"/>',
        *infos,
        f'  <TABLE name="catalogue" nrows="{len(table)}">',
        *fields,
        '   <DATA><BINARY2><STREAM encoding="base64">',
        "",
    ]
    file.write("\n".join(head).encode())
    flag_bytes = (len(values) + 7) // 8
    for start in range(0, len(table), _ROWS_PER_BLOCK):
        stop = min(start + _ROWS_PER_BLOCK, len(table))
        rows = np.zeros(stop - start, dtype=[("\0null", "u1", (flag_bytes,)), *layout])
        missing = np.zeros((stop - start, len(values)), dtype=bool)
        for index, (name, data, mask) in enumerate(values):
            rows[name] = data[start:stop]
            if mask is not None:
                missing[:, index] = mask[start:stop]
        rows["\0null"] = np.packbits(missing, axis=1)
        # A block whose length is a multiple of 3 encodes without padding, so the blocks may be joined.
        file.write(base64.b64encode(rows.tobytes()) + b"\n")
    tail = ["   </STREAM></BINARY2></DATA>", "  </TABLE>", *closing_infos, " </RESOURCE>", "</VOTABLE>", ""]
    file.write("\n".join(tail).encode())


def _vounit(unit: u.UnitBase) -> str:
    try:
        with quiet(u.UnitsWarning):
            # Angstrom is deprecated there, and still what every reader of optical spectra expects.
            return unit.to_string("vounit")
    except ValueError:
        return unit.to_string()


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    # XML has no way to write these, not even as entities.
    return _NOT_XML.sub(lambda one: one[0].encode("unicode_escape").decode("ascii"), text)


def read_votable(path: Path) -> Table:
    """Read the first table of a VOTable."""
    document = votable.parse(str(path))
    first = document.get_first_table()
    table = first.to_table(use_names_over_ids=True)
    for field in first.fields:
        if field.name in table.colnames:
            column = table[field.name]
            for key in ("ref", "_votable_string_dtype"):
                column.meta.pop(key, None)
            if field.ucd:
                column.meta["ucd"] = field.ucd
    infos = {info.name: info.value for resource in document.resources for info in resource.infos}
    table.meta = {"parameters": {key: _value(value) for key, value in infos.items()}} if infos else {}
    return _unmasked(table)


def _value(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _unmasked(table: Table) -> Table:
    """Masked columns without a masked value as plain ones, masked floats as NaN."""
    for name in table.colnames:
        column = table[name]
        if hasattr(column, "mask") and (column.dtype.kind == "f" or not np.any(column.mask)):
            meta, description, unit = dict(column.meta), column.description, column.unit
            table[name] = column.filled(np.nan) if column.dtype.kind == "f" else column.filled()
            table[name].meta.update(meta)
            table[name].description, table[name].unit = description, unit
    return table


def write_parquet(table: Table, parameters: Mapping[str, Any], file: IO[bytes]) -> None:
    """Parquet whose fields carry unit, ucd and description as metadata."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(_arrow(table, parameters), file)


def _arrow(table: Table, parameters: Mapping[str, Any]) -> Any:
    import pyarrow

    arrays, fields = [], []
    for name in table.colnames:
        column = table[name]
        data = np.ma.getdata(np.asarray(column))
        if data.dtype.kind in "SO":
            data = data.astype(str)
        data = data.astype(data.dtype.newbyteorder("="))
        mask = np.ma.getmaskarray(column) if hasattr(column, "mask") else None
        array = pyarrow.array(data.tolist() if data.dtype.kind == "U" else data, mask=mask)
        if data.dtype.kind == "U":
            array = array.cast(pyarrow.string())
        words = {
            "unit": column.unit.to_string() if column.unit is not None else "",
            "ucd": column.meta.get("ucd", ""),
            "description": column.description or "",
        }
        fields.append(pyarrow.field(name, array.type, metadata={k: v for k, v in words.items() if v}))
        arrays.append(array)
    metadata = {
        "coosys": "ICRS",
        **{f"{_PREFIX}.{key}": json.dumps(value, default=str) for key, value in parameters.items()},
    }
    return pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields, metadata=metadata))


def read_parquet(path: Path) -> Table:
    """Read a Parquet table with the metadata of its fields."""
    import pyarrow.parquet

    # By a file: the library takes no path whose bytes are not UTF-8.
    with open(path, "rb") as file:
        source = pyarrow.parquet.read_table(file)
    table = Table()
    for field in source.schema:
        array = source[field.name]
        if array.null_count and not str(array.type).startswith(("float", "double")):
            values = np.ma.masked_array(
                array.fill_null({"string": "", "bool": False}.get(str(array.type), 0)).to_numpy(),
                mask=array.is_null().to_numpy(),
            )
        else:
            values = array.to_numpy()
        table[field.name] = values.astype(str) if values.dtype == object else values
        words = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        column = table[field.name]
        column.unit, column.description = words.get("unit"), words.get("description")
        if "ucd" in words:
            column.meta["ucd"] = words["ucd"]
    prefix = f"{_PREFIX}.".encode()
    parameters = {
        key[len(prefix) :].decode(): json.loads(value)
        for key, value in (source.schema.metadata or {}).items()
        if key.startswith(prefix)
    }
    table.meta = {"parameters": parameters} if parameters else {}
    return table


def write_ecsv(table: Table, parameters: Mapping[str, Any], file: IO[bytes]) -> None:
    """ECSV: a comment block in YAML, then comma-separated rows."""
    head = Table(_plain(table)[:0], copy=True)
    head.meta = {"parameters": json.loads(json.dumps(dict(parameters), default=str))} if parameters else {}
    text = io.StringIO()
    head.write(text, format="ascii.ecsv", delimiter=",")
    file.write(text.getvalue().encode())
    _write_rows(table, file, header=False)


def read_ecsv(path: Path) -> Table:
    """Read an ECSV table."""
    try:
        table = Table.read(path, format="ecsv", engine="pyarrow")  # ten times as fast as the other engine
    except Exception:  # what this engine cannot parse (blanks between values, no rows) the other one can
        table = Table.read(path, format="ascii.ecsv")
    return _unmasked(table)


def write_csv(table: Table, parameters: Mapping[str, Any], file: IO[bytes]) -> None:
    """Comma-separated values under one line of names; the format has no place for units and parameters.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    table = Table(table, copy=False)
    for name in table.colnames:
        if table[name].dtype.kind in "UO":
            texts = [f"'{one}" if _FORMULA.match(str(one)) else str(one) for one in np.ma.getdata(table[name]).tolist()]
            if any(text.startswith("'") for text in texts):
                column = table[name].copy()
                table[name] = type(column)(np.array(texts), description=column.description, meta=column.meta)
                if hasattr(column, "mask"):
                    table[name].mask = column.mask
    _write_rows(table, file, header=True)


def _write_rows(table: Table, file: IO[bytes], *, header: bool) -> None:
    import pyarrow.csv

    options = pyarrow.csv.WriteOptions(include_header=header, quoting_style="needed")
    pyarrow.csv.write_csv(_arrow(_plain(table), {}), file, write_options=options)


def read_csv(path: Path) -> Table:
    """Read comma-separated values; units and UCDs that do not depend on the image are put back."""
    from .columns import IMAGE_COLUMNS
    from .cube_columns import CUBE_COLUMNS

    table = _unmasked(Table.read(path, format="ascii.csv"))
    for column in CUBE_COLUMNS if "line_flux" in table.colnames else IMAGE_COLUMNS:
        if column.name in table.colnames:
            if len(table) == 0 or column.dtype.startswith(("float", "int")):
                table[column.name] = table[column.name].astype(column.dtype)
            data = table[column.name]
            data.unit = None if column.unit in ("Jy", "Jy/beam", "Jy Hz", "Jy km/s") else column.unit
            data.description, data.meta["ucd"] = column.meaning, column.ucd
    return table


WRITERS: dict[str, Writer] = {
    "fits": write_fits,
    "votable": write_votable,
    "parquet": write_parquet,
    "ecsv": write_ecsv,
    "csv": write_csv,
}
READERS: dict[str, Callable[[Path], Table]] = {
    "fits": read_fits,
    "votable": read_votable,
    "parquet": read_parquet,
    "ecsv": read_ecsv,
    "csv": read_csv,
}
SUFFIXES = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".votable": "votable",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".ecsv": "ecsv",
    ".csv": "csv",
}
