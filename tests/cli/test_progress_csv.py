"""The log of a run: what is right are SB3's files, whole rows, and a run that goes on where the disk is full."""

import csv
import resource
import warnings
from contextlib import contextmanager

import pytest
from stable_baselines3.common.logger import CSVOutputFormat

from sb3_bomrl.cli.progress_csv import ProgressCSV, read_progress

ROWS = [{"a": 1, "b": 0.5}, {"a": 2, "b": 'x, "y"'}, {"a": 3, "c": 1e-9}, {"b": 4.0}]


def write(writer, rows):
    for row in rows:
        writer.write(row, dict.fromkeys(row, ()))
    writer.close()


def test_it_holds_what_sb3_writes(tmp_path):
    writer, sb3 = ProgressCSV(tmp_path / "a.csv"), CSVOutputFormat(str(tmp_path / "b.csv"))
    write(writer, ROWS)
    write(sb3, ROWS)
    sb3.file.close()
    a, b = (list(csv.DictReader((tmp_path / name).read_text().splitlines())) for name in ("a.csv", "b.csv"))
    assert a == b
    assert list(read_progress(tmp_path / "a.csv")) == a


def test_what_an_entry_excludes_is_left_out(tmp_path):
    writer = ProgressCSV(tmp_path / "a.csv")
    writer.write({"a": 1, "b": 2}, {"a": (), "b": ("csv",)})
    assert (tmp_path / "a.csv").read_text() == "a\n1\n"


@contextmanager
def full_disk(n_bytes):
    """No file can become longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "a.csv"
    writer = ProgressCSV(path)
    rows = [{"a": i, "b": "x" * 20} for i in range(10)]
    write(writer, rows[:3])
    before = path.read_bytes()
    with full_disk(len(before) + 5):
        with pytest.warns(RuntimeWarning, match=r"a\.csv could not be written .*training goes on"):
            write(writer, rows[3:4])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write(writer, rows[4:8])
        assert path.read_bytes() == before, "no half row"
    write(writer, rows[8:])
    assert [row["a"] for row in read_progress(path)] == [str(i) for i in range(10)]


def test_a_full_disk_does_not_cost_the_rows_when_columns_are_new(tmp_path):
    path = tmp_path / "a.csv"
    writer = ProgressCSV(path)
    write(writer, ROWS[:2])
    before = path.read_bytes()
    with full_disk(len(before)), pytest.warns(RuntimeWarning, match="could not be written"):
        write(writer, ROWS[2:3])
    assert path.read_bytes() == before
    write(writer, ROWS[3:])
    assert len(list(read_progress(path))) == 4


@pytest.mark.parametrize("tail", ["3,", "3", "3,4", "3,4,5\n", "\0\0\0", "3\n", '"3,4\n', "\udcff,1"])
def test_half_a_row_is_skipped(tmp_path, tail):
    path = tmp_path / "a.csv"
    path.write_bytes(f"a,b\n1,2\n{tail}".encode(errors="surrogateescape"))
    assert list(read_progress(path)) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0", b"a,b"])
def test_a_file_without_rows(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert list(read_progress(tmp_path / "a.csv")) == []
