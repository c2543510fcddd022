"""Settings that make one run of the pipeline as short as it can be while every step still does its work."""

SETTINGS = (
    "segments.num_channels=2",
    "segments.seconds_per_channel=25",
    "codec.fit_seconds=20",
    "codec.num_codebooks=2",
    "codec.codebook_size=16",
    "encode.piece_mib=0.5",
    "listen.num_segments=1",
    "publish.shard_mb=0.3",
)
