"""Write down that the tests passed in an environment: python -m tests.install.record_tried "NAME" FOLDER

Its versions go into colabkit/core/versions/tried.json, which `colabkit check` and docs/where-to-run.md tell of, with
today's date; an entry of the same name is replaced.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from colabkit.core.versions import tried
from tests.install.environments import wanted_packages

_ASK = """
import importlib.metadata as m, json, platform, re
found = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in m.distributions() if d.metadata["Name"]}
print(json.dumps([platform.python_version(), found]))
"""


def record(name: str, folder: Path) -> tried.Environment:
    """Write an environment's versions down and return them."""
    command = [folder.absolute() / "bin" / "python", "-c", _ASK]
    asked = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/")
    python, versions = json.loads(asked.stdout)
    entry = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "python": python,
        "versions": {package: versions[package] for package in sorted(wanted_packages()) if package in versions},
    }
    known = json.loads(tried.PLACE.read_text(encoding="utf-8")) if tried.PLACE.exists() else []
    others = [old for old in known if old["name"] != name]
    entries = sorted([*others, entry], key=lambda one: [int(n) for n in one["versions"]["transformers"].split(".")[:3]])
    tried.PLACE.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return tried.Environment(**entry)


if __name__ == "__main__":
    done = record(sys.argv[1], Path(sys.argv[2]))
    print(f"{done.name}: Python {done.python}, {len(done.versions)} packages, {done.date}")
