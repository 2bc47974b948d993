"""The app needs gradio, which is an extra; with the test extra it is there."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest


# Everything but this and the files' own imports is skipped without gradio.
if importlib.util.find_spec("gradio") is None:
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True)
class Server:
    """A running `unstill app`."""

    address: str
    pid: int
    home: str  # where it was started
    scratch: str  # the folder for temporary files


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    home, scratch = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("scratch")
    (home / "secret.txt").write_text("nobody reads this")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TMPDIR": str(scratch),
        # Whoever fetches anything in spite of all fails at once: nothing listens there.
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "unstill", "app", "--port", "0"],
        cwd=home,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"unstill is at (http://127\.0\.0\.1:\d+) ", line):
            break
    assert process.poll() is None and found, "".join(said)
    yield Server(found[1], process.pid, str(home), str(scratch))
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and rest.endswith("Stopped; nothing half-written was left behind.\n"), rest
    assert not list(scratch.glob("unstill-app-*")), "the server left its folder behind"
