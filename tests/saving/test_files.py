"""Paths that are no plain files: links, FIFOs, devices, folders, long names, and several writers of one file."""

import os
import stat
import threading
from pathlib import Path

import pytest

from sb3_bomrl import BOMRL
from sb3_bomrl.saving.checkpoints import checkpoints
from sb3_bomrl.saving.files import make_folder, open_regular, read_regular, write_atomically


def write(path, content=b"new"):
    write_atomically(path, lambda file: file.write(content))


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    for target in ("folder/there", "folder/not_yet"):
        link = tmp_path / f"link_to_{Path(target).name}"
        link.symlink_to(target)
        (tmp_path / "folder" / "there").write_bytes(b"old")
        write(link)
        assert link.is_symlink()
        assert (tmp_path / target).read_bytes() == b"new"
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["not_yet", "there"]


def test_a_model_is_saved_through_a_link(tiny, tmp_path):
    (tmp_path / "link.zip").symlink_to("real.zip")
    model = tiny.model()
    model.save(tmp_path / "link")
    assert (tmp_path / "link.zip").is_symlink()
    tiny.assert_equal(tiny.params(BOMRL.load_safely(tmp_path / "real.zip")), tiny.params(model))


def test_a_link_without_suffix_is_written_through(tiny, tmp_path):
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        tiny.model().save(tmp_path / "link")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
        assert BOMRL.load_safely(tmp_path / "link").num_timesteps == 0


@pytest.mark.parametrize("name", ["link", "link.zip"])
def test_a_link_in_a_circle_stays(tiny, tmp_path, name):
    (tmp_path / name).symlink_to(name)
    with pytest.raises(OSError, match=rf"symbolic links: '.*{name}'"):
        tiny.model().save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).is_symlink()


def test_a_file_of_the_system_without_content_is_refused(tiny):
    for load in (BOMRL.load, BOMRL.load_safely, tiny.model().set_parameters):
        with pytest.raises(
            ValueError, match="path must name a saved model, but /proc/self/mem must be a file that can"
        ):
            load("/proc/self/mem")


def test_what_is_in_the_way_of_a_folder_is_named(tiny, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere/else")
    for path in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "link"):
        with pytest.raises(
            NotADirectoryError, match=f"{path} must be a folder, but .*(file|link) is a file or a broken"
        ):
            make_folder(path)
        with pytest.raises(NotADirectoryError, match="must be a folder"):
            tiny.model().save(path / "model")


def test_a_fifo_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    read = []
    thread = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_bytes()))
    thread.start()
    write(tmp_path / "fifo", bytes(10**6))
    thread.join(20)
    assert read == [bytes(10**6)]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_devices_and_open_files_are_written_into(tmp_path):
    write(Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with (tmp_path / "log").open("w") as file:
        file.write("before ")
        file.flush()
        write(Path(f"/proc/self/fd/{file.fileno()}"))
        write(Path(f"/dev/fd/{file.fileno()}"), b" again")
    assert (tmp_path / "log").read_text() == "before new again"


def test_permissions_stay(tmp_path):
    write(tmp_path / "new")
    (tmp_path / "ordinary").write_bytes(b"")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    write(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["a" * 250, "ä" * 125])
def test_long_names(tiny, tmp_path, name):
    tiny.model().save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.zip"]
    assert BOMRL.load(tmp_path / name).num_timesteps == 0


def test_of_many_writers_one_leaves_its_whole_file(tmp_path):
    contents, errors = [bytes([i]) * 100_000 for i in range(8)], []

    def write_often(content):
        try:
            for _ in range(20):
                write(tmp_path / "file", content)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write_often, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_errors_name_the_file(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "file", Path("/dev/full")):
        with pytest.raises(OSError, match=str(path)):
            write(path)
    assert list(tmp_path.iterdir()) == []


def test_only_regular_files_are_read(tiny, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    model = tiny.model()
    for path in (tmp_path / "fifo", tmp_path / "folder", Path("/dev/zero")):
        for load in (BOMRL.load, BOMRL.load_safely, model.set_parameters):
            with pytest.raises(ValueError, match=rf"path must name a saved model, got '{path}', which is no regular"):
                load(path)
    for path, kind in (
        (tmp_path / "fifo", "a FIFO"),
        (tmp_path / "folder", "a folder"),
        (Path("/dev/zero"), "a device"),
    ):
        for use in (read_regular, lambda path: open_regular(path, "wb"), lambda path: open_regular(path, "a+")):
            with pytest.raises(ValueError, match=rf"{path} must be a regular file, but is .*{kind}"):
                use(path)
    os.mkfifo(tmp_path / "checkpoint_00000001.zip")
    assert checkpoints(tmp_path) == []
    model.save(tmp_path / "folder")
    assert BOMRL.load(tmp_path / "folder").num_timesteps == 0
