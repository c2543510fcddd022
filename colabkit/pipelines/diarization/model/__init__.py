"""The network that tells speakers apart, its losses and its encoders."""
