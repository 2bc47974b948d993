"""What stays on the disk when the server ends, however it ends."""

import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.app.conftest import running
from tests.app.visitor import call, config, upload
from unstill.app.scratch import scratch_folder


def test_sigterm_removes_what_visitors_uploaded(tmp_path, tiny):
    """Also while a video is being made."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    with running(home, scratch) as server, ThreadPoolExecutor(1) as other:
        page = config(server)
        (animate,) = [one for one in page["dependencies"] if one["api_name"] == "animate"]
        values = {one["id"]: one["props"].get("value") for one in page["components"]}
        labels = {one["id"]: one["props"].get("label") for one in page["components"]}
        data = []
        for one in animate["inputs"]:
            prompt = str(labels[one]).startswith("What happens")
            data.append("a red ring over green" if prompt else None if labels[one] == "Picture" else values[one])
        upload(server, "photo.png", b"a photograph")
        other.submit(call, server, "call", animate, data)
        assert list(scratch.rglob("photo.png"))
        server.end(signal.SIGTERM)
    assert not list(scratch.glob(".unstill-*")) and not list(scratch.rglob("photo.png"))


def test_a_killed_server_is_cleaned_up_after_by_the_next_one(tmp_path, tiny):
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    (scratch / ".unstill-notes").mkdir()
    (scratch / ".unstill-notes" / "mine.txt").write_text("not the server's")
    model = "--model", tiny
    with running(home, scratch, *model) as living, running(home, scratch, *model) as killed:
        folders = {lock.with_suffix("") for lock in scratch.glob(".unstill-*.lock")}
        assert len(folders) == 2
        killed.end(signal.SIGKILL)
        assert len([folder for folder in folders if folder.exists()]) == 2
        with running(home, scratch, *model) as third:
            left = [folder for folder in folders if folder.exists()]
            assert len(left) == 1, "the killed server's folder is still there, or the living one's is gone"
            assert config(living)["dependencies"]
            third.end(signal.SIGTERM)
        living.end(signal.SIGTERM)
    assert [path.name for path in scratch.glob(".unstill-*")] == [".unstill-notes"]
    assert (scratch / ".unstill-notes" / "mine.txt").exists()


def test_temporary_files_of_libraries_go_there_too(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == folder
    assert tempfile.gettempdir() == str(tmp_path) and not list(tmp_path.iterdir())
