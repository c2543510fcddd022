"""Footers: columns and where they lie, what is no Parquet, what is encrypted."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.parquet.footer import Chunk, read_footer, type_name
from tests.io.samples.parquet.by_hand import (
    A,
    parquet_file,
    refusal,
    scan,
)

_NONSENSE = {
    "lz4 of Hadoop": ([A], {"codec": 5}, "LZ4 in Hadoop"),
    "unheard-of compression": ([A], {"codec": 39}, "got 39"),
    "chunk past the file": ([A], {"column": {9: 1 << 40}}, "within 4"),
    "chunk before the file": ([A], {"column": {9: -4}}, "field 9 = -4"),
    "chunk of another column": ([A], {"column": {3: [b"path"]}}, "another column"),
    "values and rows differ": ([A], {"column": {5: 2}}, "2 values"),
    "rows differ": ([A], {"root": {3: 7}}, "7 rows"),
    "no schema": ([A], {"root": {2: []}}, "a footer with"),
    "numbers for row groups": ([A], {"root": {4: [1, 2]}}, "a footer with"),
    "encrypted column": ([A], {"chunk": {8: {1: {}}}}, "Column audio is encrypted"),
}


@pytest.mark.parametrize("name", _NONSENSE)
def test_nonsense_is_named(name):
    pages, options, told = _NONSENSE[name]
    assert told in refusal(*pages, **options)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"x" * 5000,
        b"PAR1" + b"\xff" * 4 + b"PAR1",
        b"PAR1" * 4,
        parquet_file(A, num_rows=1)[:-4] + b"PARE",
        parquet_file(A, num_rows=1)[:-1],
    ],
)
def test_files_that_are_not_parquet(content):
    with pytest.raises(DataError) as caught:
        scan(content)
    assert "a.parquet" in str(caught.value) and caught.value.fix


def test_encrypted_by_pyarrow():
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):
        def wrap_key(self, key_bytes, master_key_identifier):
            return key_bytes.hex()

        def unwrap_key(self, wrapped_key, master_key_identifier):
            return bytes.fromhex(wrapped_key)

    factory = encryption.CryptoFactory(lambda config: Keys())
    for plaintext_footer in (True, False):
        how = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["audio"]}, plaintext_footer=plaintext_footer
        )
        sink = io.BytesIO()
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
        pq.write_table(pa.table({"audio": [b"a"]}), sink, encryption_properties=properties)
        with pytest.raises(DataError, match="is encrypted"):
            scan(sink.getvalue())


def test_columns_that_are_not_there_or_not_binary():
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"audio": [{"bytes": b"a", "path": "a"}], "text": ["a"], "notes": [[b"a"]], "id": [1], "a.b": [b"x"]}),
        sink,
    )
    content = sink.getvalue()
    assert scan(content, ("text",))[0] == b"a"
    assert scan(content, ("a.b",))[0] == b"x"
    for column, told in (
        (("audio",), "did you mean 'audio.bytes'"),
        (("audio", "byte"), "did you mean 'audio.bytes'"),
        (("a", "b"), "audio.bytes, audio.path, text"),
        (("id",), "INT64"),
        (("notes", "list", "element"), "a list in each row"),
    ):
        with pytest.raises(DataError) as caught:
            scan(content, column)
        assert told in str(caught.value) and "a.parquet" in str(caught.value)


def _nested() -> bytes:
    kind = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field(
                "audio", pa.struct([pa.field("bytes", pa.binary(), nullable=False), pa.field("path", pa.string())])
            ),
            pa.field("turns", pa.list_(pa.struct([("start", pa.float64())]))),
        ]
    )
    rows = [{"id": k, "audio": {"bytes": bytes([k]), "path": "é"}, "turns": [{"start": 0.5}] * k} for k in range(7)]
    pq.write_table(pa.Table.from_pylist(rows, kind), sink := io.BytesIO(), row_group_size=3)
    return sink.getvalue()


def test_columns_and_their_places_are_those_that_pyarrow_tells():
    content = _nested()
    footer = read_footer(lambda start, stop: content[start:stop], len(content), "a.parquet")
    theirs = pq.ParquetFile(io.BytesIO(content))
    assert [".".join(column.path) for column in footer.columns] == [theirs.schema.column(i).path for i in range(4)]
    for column in footer.columns:
        told = theirs.schema.column(column.index)
        assert type_name(column.kind) == told.physical_type
        assert column.max_definition_level == told.max_definition_level
        assert column.max_repetition_level == told.max_repetition_level
        for group in range(theirs.metadata.num_row_groups):
            about = theirs.metadata.row_group(group).column(column.index)
            start = about.dictionary_page_offset or about.data_page_offset
            assert footer.chunk(group, column) == Chunk(start, start + about.total_compressed_size, 1, about.num_values)
    assert [footer.num_rows(group) for group in range(3)] == [3, 3, 1]
    assert footer.find(("audio", "path")) is footer.columns[2] and type_name(None) == "type None"


def test_a_footer_longer_than_the_first_read_takes_a_second(monkeypatch):
    monkeypatch.setattr("colabkit.io.samples.parquet.footer._TAIL_BYTES", 100)
    content, asked = _nested(), []
    footer = read_footer(lambda start, stop: asked.append((start, stop)) or content[start:stop], len(content))
    assert (
        asked == [(len(content) - 100, len(content)), (footer.begin, len(content) - 100)] and len(footer.columns) == 4
    )
