"""What stays on the disk when the server ends, however it ends."""

import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.app.conftest import running
from tests.app.visitor import call, config, upload
from tests.processes import finish, kill, start, wait_for
from unstill.app.scratch import scratch_folder


def test_sigterm_removes_what_visitors_uploaded(tmp_path):
    """Also while a video is being made. The server is open to its network, and warns of that."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    with running(home, scratch, "--host", "0.0.0.0") as server, ThreadPoolExecutor(1) as other:
        assert "Warning: everybody who can reach 0.0.0.0 can use the app" in "".join(server.said)
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


def hold(scratch, uploaded, until):
    """What a server does with its folder: `uploaded` lies in it until the file `until` exists."""
    tempfile.tempdir = str(scratch)
    with scratch_folder() as folder:
        (folder / uploaded).write_bytes(b"a photograph")
        while not until.exists():
            time.sleep(0.005)


def test_a_killed_server_is_cleaned_up_after_by_the_next_one(tmp_path):
    scratch, until = tmp_path / "scratch", tmp_path / "until"
    (scratch / ".unstill-notes").mkdir(parents=True)
    (scratch / ".unstill-notes" / "mine.txt").write_text("not the server's")

    def uploaded():
        return {path.name for path in scratch.rglob("*.png")}

    living, killed = (start(hold, scratch, f"{name}.png", until) for name in ("living", "killed"))
    wait_for(lambda: uploaded() == {"living.png", "killed.png"})
    kill([killed])
    assert uploaded() == {"living.png", "killed.png"}
    third = start(hold, scratch, "third.png", until)
    wait_for(lambda: "third.png" in uploaded())
    assert uploaded() == {"living.png", "third.png"}
    until.touch()
    finish([living, third])
    assert [path.name for path in scratch.glob(".unstill-*")] == [".unstill-notes"]
    assert (scratch / ".unstill-notes" / "mine.txt").exists()


def test_temporary_files_of_libraries_go_there_too(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == folder
    assert tempfile.gettempdir() == str(tmp_path) and not list(tmp_path.iterdir())
