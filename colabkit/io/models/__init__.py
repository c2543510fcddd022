"""Models of transformers: opened from a folder or the Hub, and the shapes that are known without either."""
