"""Run the real client libraries in a process of their own: they read the environment when they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_OURS = ("HF_", "HUGGING", "AWS_", "GCSFS_", "STORAGE_EMULATOR", "GOOGLE_")


def run_client(script: str, environment: dict[str, str], home: Path, *arguments: str) -> dict:
    """Run Python code that prints a JSON object last, without this machine's accounts, and return the object."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=inherited | {"HF_HOME": str(home / "hf"), "HOME": str(home)} | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
