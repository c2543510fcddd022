"""Dataset pipeline: recordings or segments -> S3 -> neural codec -> Hugging Face, on a disk smaller than the data."""

NOTEBOOK = "04_dataset_pipeline"
