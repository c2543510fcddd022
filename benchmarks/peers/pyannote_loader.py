"""pyannote.audio's own training loader over recordings with RTTM, its windows a second as JSON.

Run by stream_simulation.py.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")


def main() -> None:
    folder = Path(sys.argv[1])
    workers, seconds, batch, window = int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    from lightning.pytorch import Trainer
    from pyannote.audio.models.segmentation import PyanNet
    from pyannote.audio.tasks import SpeakerDiarization
    from pyannote.database import FileFinder, registry

    registry.load_database(str(folder / "database.yml"))
    protocol = registry.get_protocol("Bench.SpeakerDiarization.mixes", preprocessors={"audio": FileFinder()})
    task = SpeakerDiarization(
        protocol,
        duration=window,
        batch_size=batch,
        num_workers=workers,
        max_speakers_per_chunk=3,
        max_speakers_per_frame=2,
    )
    model = PyanNet(task=task)
    task.model = model
    task.prepare_data()
    model.trainer = Trainer(accelerator="cpu", logger=False)  # asked for its rank and number of processes alone
    model.setup(stage="fit")
    loader = iter(task.train_dataloader())
    next(loader)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        count += len(next(loader)["X"])
    print(json.dumps({"windows_per_second": count / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
