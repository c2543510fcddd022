"""Kill a notebook hundreds of times, run it again until it ends, and compare what it made with a run left in peace.

    python benchmarks/notebook_kills.py --kills 200

Notebook 01 runs under papermill with the engine colabkit, on settings that make it small. SIGKILL hits the kernel,
papermill, or both: half of the kills before a cell begins or after it ended, the others at random instants. Every run's
metrics and the hashes of all outputs must be those of an undisturbed run; no finished step may be done again, and
training may not repeat more than the steps since the last checkpoint. The last line is the result; the exit code is 1
if anything was wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.headless.notebook_killing import CHECKPOINT_EVERY_STEPS, Campaign, Server, made_by, plainly


def main() -> int:
    options = parse()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="notebook-kills-") as name:
        place = Path(name)
        plainly(place / "state", "plain", place / "plain.ipynb")
        print(f"undisturbed, as a user runs it: {time.monotonic() - began:.1f} s", flush=True)
        expected = made_by(place / "state", "plain")
        with Server(place / "server") as server:
            campaign = Campaign(server, place, expected, say=lambda line: print(line, flush=True))
            campaign.attempt()
            print(f"forked: {campaign.seconds:.1f} s, {len(expected)} things to compare", flush=True)
            cells = range(num_code_cells(place / "plain.ipynb"))
            campaign.at_boundaries(cells, options.kills // 2)
            campaign.finish()
            campaign.at_random(options.kills, options.seed)
            tally = campaign.finish()
    too_many = tally.most_repeated_steps > CHECKPOINT_EVERY_STEPS
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{tally} (a checkpoint every {CHECKPOINT_EVERY_STEPS})")
    return 1 if tally.faults or too_many or tally.num_kills < options.kills else 0


def num_code_cells(path: Path) -> int:
    import nbformat

    return sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="which random instants (default: 0)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
