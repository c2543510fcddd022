"""ASR fine-tuning: batch size, precision and the rest chosen from hardware, dataset and model."""

NOTEBOOK = "03_asr_auto_config"

RATE_HZ = 16_000
