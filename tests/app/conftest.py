"""The app needs gradio, which is an extra; with the test extra it is there."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipelines import random_pico


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
    process: subprocess.Popen
    said: list[str]  # lines on the screen

    def end(self, number):
        """Send a signal; the exit code and what was said at last."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        time.sleep(0.2)  # for the thread that reads
        return code, "".join(self.said[-3:])

    @property
    def uploads(self):
        (folder,) = Path(self.scratch).glob(".unstill-*/uploads")
        return folder


@contextmanager
def running(home, scratch, *options):
    """`unstill app` with options, started in `home`, with `scratch` as the folder for temporary files."""
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
    with subprocess.Popen(
        [sys.executable, "-m", "unstill", "app", "--port", "0", *options],
        cwd=home,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said, found = [], None
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"unstill is at (http://\S+:\d+) ", line):
                    break
            assert process.poll() is None and found, "".join(said)
            rest = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
            rest.start()  # a full pipe would stop the server
            address = found[1].replace("0.0.0.0", "127.0.0.1")
            yield Server(address, process.pid, str(home), str(scratch), process, said)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with a small pipeline of random weights: a video takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    random_pico().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def server(tmp_path_factory, tiny):
    """Offers the embedded model, and `tiny` to tests that only need some video."""
    home, scratch = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("scratch")
    (home / "secret.txt").write_text("nobody reads this")
    with running(home, scratch, "--model", "pico", "--model", tiny) as started:
        yield started
        code, rest = started.end(signal.SIGINT)
        assert code == 130 and rest.endswith("Stopped; nothing half-written was left behind.\n"), rest
        assert not list(scratch.glob(".unstill-*")), "the server left files behind"
