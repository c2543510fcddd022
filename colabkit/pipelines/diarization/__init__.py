"""Streaming speaker diarization: who speaks when, learned from conversations simulated on the fly."""

NOTEBOOK = "01_streaming_diarization"

RATE_HZ = 16_000
FRAME_SAMPLES = 320  # 20 ms
FRAME_SECONDS = FRAME_SAMPLES / RATE_HZ
