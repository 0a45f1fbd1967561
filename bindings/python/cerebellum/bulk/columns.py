"""Batches of rows in the forms that engines have: Arrow, pandas, dictionaries of columns, lists of texts."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..arguments import kind_of

# A batch: pyarrow.Table, pyarrow.RecordBatch, pandas.DataFrame, a dictionary of columns, or a list of texts.
Rows = Any

# The columns that a task adds, and their types.
Columns = Tuple[Tuple[str, str], ...]

# Type: names in Arrow, Spark (an inner type stands for an array of it) and pandas.
_SPARK = {"double": "DoubleType", "int64": "LongType", "string": "StringType", "float": "FloatType"}
_PANDAS = {"double": "float64", "int64": "Int64", "string": "object"}


def family(rows: Rows) -> str:
    """The form of a batch."""
    module = type(rows).__module__.partition(".")[0]
    kind = kind_of(rows)
    if module == "pyarrow" and kind in ("Table", "RecordBatch"):
        return "arrow"
    if module == "pandas" and kind == "DataFrame":
        return "pandas"
    if isinstance(rows, Mapping):
        return "dictionary"
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
        return "list"
    forms = "an Arrow table or record batch, a pandas DataFrame, a dictionary of columns or a list of texts"
    raise TypeError(f"rows: {forms} is needed, not {kind}")


def values(rows: Rows, name: str, several: bool) -> List[Any]:
    """The values of a column, None for those that are missing. A list of texts is the one column of a task that
    does not need several."""
    form = family(rows)
    if form == "list":
        if several:
            raise TypeError("rows: this task needs more than one column: pass a dictionary of columns or a table")
        return list(rows)
    names = column_names(rows)
    if name not in names:
        raise ValueError(f"rows: there is no column {name!r}: name the column when you make the task; it has {names}")
    if form == "arrow":
        result: List[Any] = rows.column(names.index(name)).to_pylist()
        return result
    found = list(rows[name])
    # pandas has NaN or NA in place of a missing text.
    return [value if isinstance(value, (str, list, dict)) or not _is_missing(value) else None for value in found]


def _is_missing(value: Any) -> bool:
    if value is None or kind_of(value) in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def column_names(rows: Rows) -> List[str]:
    """The names of the columns of a batch."""
    form = family(rows)
    if form == "arrow":
        return list(rows.schema.names)
    return [] if form == "list" else list(rows.keys() if form == "dictionary" else rows.columns)


def extended(rows: Rows, columns: Columns, results: List[Tuple[Any, ...]]) -> Rows:
    """The batch with the columns of the results, in the form it has."""
    form = family(rows)
    names = [name for name, _ in columns]
    taken = sorted(set(names) & set(column_names(rows)))
    if taken:
        raise ValueError(f"rows: the task adds a column {taken[0]!r}, and there is one of this name: rename it")
    if form == "list":
        return [dict(zip(names, result)) for result in results]
    lists = {name: [result[index] for result in results] for index, name in enumerate(names)}
    if form == "dictionary":
        return {**rows, **lists}
    if form == "pandas":
        import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

        made = {
            name: pandas.Series(lists[name], index=rows.index, dtype=_PANDAS.get(kind, "object"))
            for name, kind in columns
        }
        return rows.assign(**made)
    import pyarrow  # type: ignore[import-untyped,import-not-found,unused-ignore]

    schema = arrow_schema(rows.schema, columns)
    arrays = list(rows.columns) + [
        pyarrow.array(lists[name], type=schema.field(name).type) for name in names
    ]
    return type(rows).from_arrays(arrays, schema=schema)


def arrow_schema(schema: Any, columns: Columns) -> Any:
    """An Arrow schema with the columns of a task."""
    import pyarrow

    types = {
        "double": pyarrow.float64(), "int64": pyarrow.int64(), "string": pyarrow.string(), "float": pyarrow.float32(),
    }
    for name, kind in columns:
        inner = types[kind.rstrip("s") if kind in ("doubles", "floats") else kind]
        schema = schema.append(pyarrow.field(name, pyarrow.list_(inner) if kind.endswith("s") else inner))
    return schema


def spark_schema(schema: Any, columns: Columns) -> Any:
    """A Spark schema with the columns of a task."""
    from pyspark.sql import types  # type: ignore[import-untyped,import-not-found,unused-ignore]

    fields = list(schema.fields)
    for name, kind in columns:
        inner = getattr(types, _SPARK[kind.rstrip("s") if kind in ("doubles", "floats") else kind])()
        fields.append(types.StructField(name, types.ArrayType(inner) if kind.endswith("s") else inner))
    return types.StructType(fields)


def plain(value: Any) -> Any:
    """An option's value as JSON has it: what an iterator gives once is kept, numbers of numpy become numbers."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "__index__"):
        return int(value)
    if hasattr(value, "__float__"):
        return float(value)
    if hasattr(value, "__iter__") and not isinstance(value, (bytes, bytearray)):
        return [plain(inner) for inner in value]
    return value


def as_rows(rows: Mapping[str, List[Any]]) -> List[Dict[str, Any]]:
    """A dictionary of columns as a list of rows."""
    return [dict(zip(rows, row)) for row in zip(*rows.values())]
