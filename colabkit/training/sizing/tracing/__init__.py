"""A real training step on tensors that only count: what it holds when, without a GPU or the memory."""
