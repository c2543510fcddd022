"""Settings that make one run of the pipeline as short as it can be while every step still does its work."""

SETTINGS = (
    "data.num_voices=10",
    "data.sentences_per_voice=3",
    "data.held_out_fraction=0.2",
    "data.validation_fraction=0.2",
    "sizing.sample_size=5",
    "model.hidden_size=16",
    "model.num_layers=1",
    "train.steps=12",
    "train.effective_batch=4",
    "train.checkpoint_every_steps=3",
    "train.validate_every_steps=6",
    "train.validation_samples=2",
    "train.tracker=none",
    "evaluate.num_samples=2",
    "example.num_samples=1",
)
