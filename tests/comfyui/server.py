"""A real ComfyUI on a loopback port, with the nodes and a folder of its own; needs UNSTILL_COMFYUI (see docs)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[2]


class Server:
    def __init__(self, base: Path) -> None:
        self.base, self.checkout = base, Path(os.environ["UNSTILL_COMFYUI"])
        for folder in ("custom_nodes", "models/diffusion_models", "models/latent_statistics", "output", "user"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        for name, folder in (("unstill", ROOT / "comfyui"), ("test_nodes", Path(__file__).parent / "test_nodes")):
            link = base / "custom_nodes" / name
            if not link.exists():
                link.symlink_to(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> "Server":
        python = os.environ.get("UNSTILL_COMFYUI_PYTHON", sys.executable)
        command = [
            python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port), "--disable-api-nodes",
            "--base-directory", str(self.base), "--database-url", "sqlite:///:memory:",
        ]  # fmt: skip
        self.log = (self.base / "log").open("w")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            command, cwd=self.checkout, stdout=self.log, stderr=subprocess.STDOUT, env=environment
        )
        for _ in range(600):
            try:
                self.get("/system_stats")
                return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.5)
        self.__exit__()
        raise RuntimeError((self.base / "log").read_text()[-3000:])

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def queue(self, graph: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer of `/prompt`."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/prompt",
            json.dumps({"prompt": graph}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Queues a graph and waits; returns its history, of which `status` says whether it went well."""
        status, answer = self.queue(graph)
        assert status == 200, answer
        for _ in range(1200):
            history = self.get(f"/history/{answer['prompt_id']}")
            if history:
                return next(iter(history.values()))
            time.sleep(0.1)
        raise TimeoutError("no result of a graph")
