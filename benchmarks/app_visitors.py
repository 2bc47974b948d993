"""
Visitors of the app who upload a picture and ask for its check at the same moment.

    python benchmarks/app_visitors.py --visitors 30 --megapixels 12

Starts a server of its own on a free port and ends it. Prints the seconds until all were answered, the statuses, and
the peak resident memory of the server before and after.
"""

import argparse
import io
import json
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image


sys.path.insert(0, str(Path(__file__).parents[1]))  # for the server and the visitors of the tests
from tests.app import visitor as http_visitor
from tests.app.conftest import running
from tests.app.visitor import META, call, config, upload


def jpeg(megapixels: float) -> bytes:
    """A photo-like picture of 4:3: smooth with some noise."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = height * 4 // 3
    rows, columns = np.linspace(0, 180, height)[:, None, None], np.linspace(0, 60, width)[None, :, None]
    noise = np.random.default_rng(0).integers(0, 16, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray((rows + columns + noise).astype(np.uint8)).save(file, "jpeg", quality=90)
    return file.getvalue()


def peak(pid: int) -> float:
    """Largest resident memory so far, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--megapixels", type=float, default=12)
    options = parser.parse_args()
    http_visitor.PATIENCE = 600
    data, answers = jpeg(options.megapixels), list[str]()

    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as scratch,
        running(home, scratch, "--model", "pico") as server,
    ):
        functions = {function["api_name"]: function for function in config(server)["dependencies"]}
        before = peak(server.pid)

        def visit(number: int) -> None:
            try:
                path = upload(server, f"{number}.jpg", data)
                status, body = call(server, "run", functions["check_upload"], [{"path": path, "meta": META}])
                error = "" if status == 200 else json.loads(body).get("error", "")
                answers.append(f"{status} {error}".strip())
            except Exception as error:
                answers.append(type(error).__name__)

        visitors = [threading.Thread(target=visit, args=(number,)) for number in range(options.visitors)]
        began = time.monotonic()
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        seconds = time.monotonic() - began
        print(
            f"{options.visitors} visitors, JPEG of {options.megapixels:g} MP ({len(data) / 1e6:.1f} MB): "
            f"{seconds:.1f} s, answers {dict(Counter(answers))}, peak resident memory {before:.0f} MiB before, "
            f"{peak(server.pid):.0f} MiB after",
            flush=True,
        )
        server.end(signal.SIGTERM)


if __name__ == "__main__":
    main()
