"""A rule of thumb that is widely copied, kept to be compared with: no memory of attention, of precision or of the length squared.

    audio = seconds * 16,000 * 4 bytes;  activations = 0.1 * memory of the model
    batch = what is left / (audio + activations), 64 at most;  accumulation = target / batch
"""

from __future__ import annotations

RATE_HZ, SAMPLE_BYTES = 16_000, 4
ACTIVATIONS = 0.1
MOST_SAMPLES = 64


def seed_rule(mean_seconds: float, model_bytes: float, total_bytes: float, *, safety_margin: float = 0.85,
              target: int = 32) -> tuple[int, int]:
    """Return (batch, accumulation); at least (1, ...), whether that fits or not.

    `model_bytes`: weights, gradients and optimizer states.
    """
    each = mean_seconds * RATE_HZ * SAMPLE_BYTES + ACTIVATIONS * model_bytes
    batch = int((total_bytes * safety_margin - model_bytes) / each)
    batch = max(1, min(batch, MOST_SAMPLES))
    return batch, max(1, target // batch)
