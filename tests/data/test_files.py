"""Writing whole or not at all; what the dead have left; what is ours to replace."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from unstill.data import ownership
from unstill.data.files import cannot_write, replacing, sweep
from unstill.data.ownership import check_free, is_record, together
from unstill.data.video import write_video
from unstill.errors import UnstillError


HELD = """
import sys, time
from pathlib import Path
from unstill.data.files import beside, replacing
with beside(Path(sys.argv[1])) as folder, replacing(Path(sys.argv[1]) / "new.txt") as new:
    (folder / "half").write_text("x"), new.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def writer(folder):
    process = subprocess.Popen([sys.executable, "-c", HELD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    users = [".unstill-notes", ".unstill-0123456789abcdef", ".unstill-0123456789abcdeg.lock", ".new.txt.tmp"]
    for name in users:
        (tmp_path / name).mkdir()
    dead, alive = writer(tmp_path), writer(tmp_path)
    dead.kill()
    dead.wait()
    assert len(os.listdir(tmp_path)) == len(users) + 8
    sweep(tmp_path)
    assert len(os.listdir(tmp_path)) == len(users) + 4
    alive.kill()
    alive.wait()
    with replacing(tmp_path / "mine.txt") as new:  # any writing in that place sweeps
        new.write_text("whole")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*users, "mine.txt"])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, stop):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(stop), replacing(tmp_path / "a.txt") as new:
        new.write_text("half")
        raise stop
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed"), "free some space"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_a_full_disk_is_told_in_one_way_and_only_then(tmp_path, error, said):
    for words in (replacing(tmp_path / "a.txt"), together(tmp_path / "a.json")):
        with pytest.raises(UnstillError, match=said) as found, words:
            raise error
        assert ("free some space" in str(found.value)) == ("space" in said)
    assert os.listdir(tmp_path) == []
    assert str(cannot_write(tmp_path / "a.txt", error)).count(".") >= 1


def test_frames_are_replaced_only_where_all_are_of_this_program(tmp_path):
    video = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    write_video(tmp_path / "frames", video, 8)
    write_video(tmp_path / "frames", video[:1], 8)
    assert os.listdir(tmp_path / "frames") == ["frame_00000.png"]
    Image.new("RGB", (8, 8)).save(tmp_path / "frames" / "frame_00009.png")  # the name, but not written by us
    with pytest.raises(UnstillError, match="other files than frames"):
        write_video(tmp_path / "frames", video, 8)
    assert len(os.listdir(tmp_path / "frames")) == 2


def make(record, **texts):
    with together(record, texts) as made:
        for name, text in texts.items():
            (made.folder / name).write_text(text)
        made.record["seed"] = 1
    return made.record


def test_results_replace_results_and_nothing_of_a_users(tmp_path):
    record = tmp_path / "walk.json"
    make(record, **{"walk.mp4": "1", "walk_plain.mp4": "1"})
    make(record, **{"walk.mp4": "2"})
    make(record, **{"walk.mp4": "3", "walk_plain.mp4": "3"})  # an earlier result is still ours
    assert sorted(os.listdir(tmp_path)) == ["walk.json", "walk.mp4", "walk_plain.mp4"] and is_record(record)
    (tmp_path / "walk_plain.mp4").write_text("somebody's")
    with pytest.raises(UnstillError, match=r"walk_plain\.mp4 exists already.*never overwritten"):
        make(record, **{"walk.mp4": "4", "walk_plain.mp4": "4"})
    assert (tmp_path / "walk.mp4").read_text() == "3"


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"seal": null}', "[" * 20_000, '{"seed": 1}'])
def test_a_record_of_somebody_else_is_not_overwritten(tmp_path, text):
    (tmp_path / "photo.json").write_text(text)
    with pytest.raises(UnstillError, match=r"photo\.json exists already"):
        make(tmp_path / "photo.json")
    assert (tmp_path / "photo.json").read_text() == text


def test_a_changed_record_vouches_for_nothing(tmp_path):
    make(tmp_path / "a.json", **{"a.mp4": "1"})
    changed = (tmp_path / "a.json").read_text().replace('"seed": 1', '"seed": 2')
    (tmp_path / "a.json").write_text(changed)
    with pytest.raises(UnstillError, match=r"a\.json exists already"):
        check_free(tmp_path / "a.json", [tmp_path / "a.mp4"])


def test_killed_between_two_renames_the_next_run_still_knows_its_files(tmp_path, monkeypatch):
    record = tmp_path / "a.json"
    make(record, **{"a.mp4": "1", "b.mp4": "1"})
    real = ownership.move

    def killed(new, path):
        if path.name == "b.mp4":
            raise KeyboardInterrupt
        real(new, path)

    monkeypatch.setattr(ownership, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        make(record, **{"a.mp4": "2", "b.mp4": "2"})
    assert ((tmp_path / "a.mp4").read_text(), (tmp_path / "b.mp4").read_text()) == ("2", "1")
    monkeypatch.undo()
    make(record, **{"a.mp4": "3", "b.mp4": "3"})
    assert (tmp_path / "b.mp4").read_text() == "3"


def test_links_are_never_followed_nor_replaced(tmp_path):
    make(tmp_path / "a.json", **{"a.mp4": "1"})
    (tmp_path / "elsewhere.mp4").write_text("1")
    (tmp_path / "a.mp4").unlink()
    (tmp_path / "a.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(UnstillError, match=r"a\.mp4 exists already"):
        make(tmp_path / "a.json", **{"a.mp4": "2"})
    assert (tmp_path / "elsewhere.mp4").read_text() == "1"


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 300 + ".json", os.fsdecode(b"\xff\xfe.json"), "a\0.json"])
def test_names_that_cannot_be_written_are_refused_before_the_work(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnstillError, match="--out" if len(name) < 300 else "cannot be written"):
        check_free(Path(name), [])


def test_a_name_of_the_users_that_is_no_utf8_is_recorded(tmp_path):
    name = os.fsdecode(b"\xff.png")
    with together(tmp_path / "a.json") as made:
        made.record["image"] = name
    assert json.loads((tmp_path / "a.json").read_bytes())["image"] == name and is_record(tmp_path / "a.json")


def test_a_folder_that_a_killed_process_had_moved_out_of_the_way_is_put_back(tmp_path):
    for name, there in (("frames", False), ("others", True)):
        left = tmp_path / f".unstill-{0:016x}" / f"{name}.replaced"
        left.mkdir(parents=True)
        (left / "frame_00000.png").write_text(f"old {name}")
        if there:
            (tmp_path / name).mkdir()
    (tmp_path / f".unstill-{0:016x}.lock").touch()
    sweep(tmp_path)
    assert (tmp_path / "frames" / "frame_00000.png").read_text() == "old frames"
    assert sorted(os.listdir(tmp_path)) == ["frames", "others"] and not os.listdir(tmp_path / "others")


def test_a_folder_is_replaced_only_with_exactly_what_was_written_into_it(tmp_path):
    def write():
        with together(tmp_path / "run.json", ["model"]) as made:
            (made.folder / "model").mkdir()
            (made.folder / "model" / "weights").write_text("1")

    write()
    write()
    os.mkfifo(tmp_path / "model" / "pipe")  # opened, it would wait for ever
    with pytest.raises(UnstillError, match="model exists already"):
        write()
    (tmp_path / "model" / "pipe").unlink()
    (tmp_path / "model" / "weights").chmod(0)
    if os.geteuid():  # root reads everything
        with pytest.raises(UnstillError, match="model exists already"):
            write()


@pytest.mark.parametrize("call", ["rmtree", "FileLock.acquire"])
def test_a_signal_while_temporary_files_are_made_or_removed_leaves_none(tmp_path, monkeypatch, call):
    from filelock import FileLock

    from unstill.data import files

    place, name = (files.shutil, "rmtree") if call == "rmtree" else (FileLock, "acquire")
    real, calls = getattr(place, name), []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(place, name, interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as new:
        new.write_text("x")
    assert [name for name in os.listdir(tmp_path) if name.startswith(".unstill")] == []
