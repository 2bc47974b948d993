"""What stays on the disk when the server ends, however it ends."""

import signal
from concurrent.futures import ThreadPoolExecutor

from tests.app.conftest import running
from tests.app.visitor import call, config, upload
from unstill.app.scratch import LOCK, PREFIX, remove_abandoned, scratch_folder


def test_sigterm_removes_what_visitors_uploaded(tmp_path):
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
    assert not list(scratch.glob(f"{PREFIX}*")) and not list(scratch.rglob("photo.png"))


def test_a_killed_server_is_cleaned_up_after_by_the_next_one(tmp_path):
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    (scratch / f"{PREFIX}notes").mkdir()
    (scratch / f"{PREFIX}notes" / "mine.txt").write_text("not the server's")
    with running(home, scratch) as living, running(home, scratch) as killed:
        folders = {folder for folder in scratch.glob(f"{PREFIX}*") if (folder / LOCK).exists()}
        assert len(folders) == 2
        killed.end(signal.SIGKILL)
        assert len([folder for folder in folders if folder.exists()]) == 2
        with running(home, scratch) as third:
            left = [folder for folder in folders if folder.exists()]
            assert len(left) == 1, "the killed server's folder is still there, or the living one's is gone"
            assert config(living)["dependencies"]
            third.end(signal.SIGTERM)
        living.end(signal.SIGTERM)
    assert [path.name for path in scratch.glob(f"{PREFIX}*")] == [f"{PREFIX}notes"]
    assert (scratch / f"{PREFIX}notes" / "mine.txt").exists()


def test_only_folders_with_a_lock_that_nobody_holds_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, other = tmp_path / f"{PREFIX}dead", tmp_path / "unstill-apple"
    for folder in (dead, other):
        folder.mkdir()
        (folder / LOCK).touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / LOCK).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(outside)
    with scratch_folder() as folder:
        assert not dead.exists() and other.exists() and outside.exists()
        remove_abandoned(tmp_path)
        assert folder.exists()
    assert not folder.exists()
