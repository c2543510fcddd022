"""Floor 1: knows no pipeline and no model."""
