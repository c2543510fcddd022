"""Settings that make one run of the pipeline as short as it can be while every step still does its work."""

SETTINGS = (
    "speech.num_voices=10",
    "speech.validation_fraction=0.2",
    "speech.seconds_per_voice=3",
    "speech.max_hours=0.006",
    "simulate.window_seconds=2",
    "model.hidden_size=16",
    "model.embedding_size=8",
    "model.num_blocks=2",
    "train.steps=12",
    "train.effective_batch=4",
    "train.checkpoint_every_steps=3",
    "train.validate_every_steps=6",
    "train.num_validation_mixes=1",
    "train.tracker=none",
    "infer.window_seconds=10",
    "infer.hop_seconds=10",
    "evaluate.num_mixes=1",
    "evaluate.mix_seconds=8",
    "example.seconds=10",
)
