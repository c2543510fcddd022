"""The step that transcribes and scores: decoding, language models, metrics."""
