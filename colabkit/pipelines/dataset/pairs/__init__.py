"""The step that makes pairs for voice cloning, and rows to fine-tune on."""
