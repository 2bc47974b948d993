"""What needs tensors and no pipeline is imported without diffusers: ComfyUI nodes are made of it."""

import subprocess
import sys


MODULES = (
    "unstill.errors",
    "unstill.forward_process",
    "unstill.lab.leakage",
    "unstill.lab.plots",
    "unstill.lab.probe_conditions",
    "unstill.latent_statistics",
    "unstill.methods.registry",
    "unstill.metrics",
    "unstill.metrics.camera",
    "unstill.metrics.onset",
    "unstill.noise_schedule",
    "unstill.sigma_schedule",
)

SCRIPT = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("diffusers", "transformers", "accelerate", "peft", "gradio"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    importlib.import_module(name)
from unstill.methods.registry import method_classes
print(len(method_classes()))
"""


def test_pure_functions_are_imported_without_diffusers() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *MODULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10  # every method's file
