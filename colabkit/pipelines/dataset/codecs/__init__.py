"""Neural codecs behind one protocol: speech to codes and back."""
