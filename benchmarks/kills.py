"""Kill runs without warning, hundreds of times, and compare what they made with runs left in peace.

    python benchmarks/kills.py --kills 500

Half of the kills stand at every file event of a run, just before and just after it (a folder made, a file moved into
place, a checkpoint removed); the others come at random instants. A killed run is started again until it ends. Its
weights, other outputs, metrics and choices must then be those of an undisturbed run, to the last bit.
The last line is the result; the exit code is 1 if anything differed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from colabkit.pipelines import discover, find
from tests.contracts.killing import Campaign, Server, Tally, arguments, command, read_events, results
from tests.contracts.small import settings_of


def main() -> int:
    options = parse()
    names = [find(name).name for name in options.pipeline] or [p.name for p in discover()]
    total = Tally()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        for name in names:
            tally = measure(name, Path(place, name), options.kills // len(names), options.threads, options.seed)
            total.kills, total.runs = total.kills + tally.kills, total.runs + tally.runs
            total.differences += tally.differences
            shutil.rmtree(Path(place, name))
    print(f"{time.monotonic() - began:.0f} s")
    print(total)
    return 1 if total.differences or total.kills < options.kills // len(names) * len(names) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500, help="how many in all (default: 500)")
    parser.add_argument("--pipeline", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="which random instants (default: 0)")
    return parser.parse_args()


def measure(name: str, place: Path, kills: int, threads: int, seed: int) -> Tally:
    """Run one pipeline's campaign; the undisturbed run is a plain process."""
    settings = settings_of(find(name))
    state = place / "state"
    plain = command(arguments(name, state, "plain", settings), threads=threads)
    if plain.code:
        raise SystemExit(f"the undisturbed run of {name} failed:\n{plain.text}")
    expected = results(state / name / "plain")
    with Server(name, place / "server", threads=threads) as server:
        listing = place / "events.jsonl"
        forked = server.run(arguments(name, state, "forked", settings), state / name / "forked", listing=str(listing))
        events = read_events(listing)
        print(
            f"{name}: {forked.seconds:.1f} s undisturbed, {len(expected)} things to compare, {len(events)} file events"
        )
        campaign = Campaign(server, state, settings, expected, most_seconds=forked.seconds)
        spread = events[:: max(1, round(4 * len(events) / max(kills, 1)))]  # two kills an event, half of all kills
        campaign.at_events(spread, most_kills=(kills + 1) // 2)
        campaign.at_random(kills, seed)
        tally = campaign.finish()
    print(
        f"{name}: {tally}; {len(tally.unreached)} events never came again; "
        f"at most {tally.most_left_bytes / 1e6:.1f} MB of temporary files left in a run"
    )
    return tally


if __name__ == "__main__":
    sys.exit(main())
