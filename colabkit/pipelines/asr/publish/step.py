"""The last step of a training: the card of the model it made, and the way to the Hub."""

from __future__ import annotations

from typing import Any

from colabkit.core import files
from colabkit.io.transfer.hub_folder import push
from colabkit.pipelines.asr.config import Config
from colabkit.pipelines.asr.configure.manager import ASRConfigManager
from colabkit.pipelines.asr.configure.step import TRAINING_CONFIG
from colabkit.pipelines.asr.publish.card import CardFacts, describe_source, write_card
from colabkit.runs.run import Run

PICTURES = {"03_configure": "memory.png", "04_train": "history.png"}


def publish_model(config: Config, run: Run) -> dict[str, Any]:
    """Write the card and its pictures to the run's output; push the model and them where a repository is named.

    Raises: as push.
    """
    for step, name in PICTURES.items():
        files.write_atomic(run.output / name, (run.folder_of(step) / name).read_bytes())
    write_card(run.output, facts_of(config, run))
    if not config.publish.repo:
        run.choose("publish.repo", "none", "no repository is named: --set publish.repo=ORG/NAME pushes the model")
        return {}
    how = {"private": config.publish.private, "teller": run}
    push(run.folder_of("04_train") / "model", config.publish.repo, message="Upload the model", **how)
    # A repository that is new has been made with the model: the card finds it.
    pushed = push(run.output, config.publish.repo, message="Upload the model card", left_out=("*.json",), **how)
    return {"url": pushed.url}


def facts_of(config: Config, run: Run) -> CardFacts:
    """Gather what the card says from what the steps before wrote."""
    listing = files.read_json(run.folder_of("01_data") / "listing.json")
    scores = files.read_json(run.folder_of("05_evaluate") / "scores.json")
    manager = ASRConfigManager(teller=run)
    chosen = manager.load_config(run.folder_of("03_configure") / TRAINING_CONFIG)
    name, text = config.model.name, config.text
    batch = (
        f"{chosen.effective_batch_size} samples"
        if chosen.effective_seconds is None
        else f"{chosen.effective_seconds:g} s of audio at most, padding included"
    )
    trained_on = [source["source"] for source in listing["sources"]]
    tested_on = (
        _named(config.data.test_source)
        if config.data.test_source
        else "held-out part of " + ", ".join(map(_named, config.data.source))
    )
    return CardFacts(
        title=config.publish.repo.rpartition("/")[2] or f"{name.rpartition('/')[2] or 'small CTC model'}, fine-tuned",
        repo=config.publish.repo,
        language=text.language,
        licence=config.publish.licence,
        base_model=name,
        family="whisper" if manager.model.model_type == "whisper" else "ctc",
        datasets=[source for source in trained_on if source != config.data.test_source],
        train_hours=listing["splits"]["train"]["hours"],
        scores={tested_on: scores},
        text_rules=f"Characters in {text.case} case, digits: {text.digits}, punctuation: {text.punctuation}.",
        settings={
            "effective batch": batch,
            "learning rate": chosen.learning_rate,
            "precision": chosen.mixed_precision,
            "optimizer": chosen.optimizer,
            "steps": run.report.data["metrics"].get("train_steps", chosen.max_steps),
        },
        examples=scores["worst"][:5],
        figures=sorted(PICTURES.values()),
    )


def _named(address: str) -> str:
    """Return what the card calls a test set: a Hub dataset by its address, a place of one's own without its path."""
    return address if address.startswith("hub:") else describe_source(address)
