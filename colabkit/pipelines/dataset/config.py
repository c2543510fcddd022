"""Settings of the dataset pipeline, one section a concern, and its presets.

The presets are demo, quick and full, and one for each machine's role.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from colabkit.core.config import KEEPS_RESULT
from colabkit.pipelines.dataset.segments.rules import CutRules, Filters

LOOPBACK = "loopback"  # a store, or a Hub, that this machine serves to itself


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleConfig:
    """What this machine does of the whole."""

    machine: Annotated[
        Literal["all", "segment", "encode", "publish"],
        "segment: steps 01 to 03; encode: 04 and 05; publish: 06 and 07; the store is where they meet",
        KEEPS_RESULT,
    ] = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where the machines meet.

    Keys come from the environment (AWS_... or S3_...), Colab's secrets or ~/.aws, never from here.
    """

    address: Annotated[
        str,
        "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://buckets/NAMESPACE/NAME, a folder, or loopback; "
        "empty: the folder store/ of the run",
    ] = ""
    endpoint: Annotated[
        str, "web address of a store that is not Amazon's; empty: AWS_ENDPOINT_URL or S3_ENDPOINT_URL", KEEPS_RESULT
    ] = ""
    region: Annotated[str, "region of the bucket; empty: found", KEEPS_RESULT] = ""
    path_style: Annotated[
        Literal["auto", "yes", "no"], "the bucket's name in the path; auto: where there is an endpoint", KEEPS_RESULT
    ] = "auto"
    ca_bundle: Annotated[
        str, "PEM file of certificates to trust besides the system's (see colabkit trust)", KEEPS_RESULT
    ] = ""
    verify: Annotated[
        bool, "look at certificates; no: anybody in between can read and change what is sent", KEEPS_RESULT
    ] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsConfig:
    """Segments of speech: there already, or cut from recordings."""

    source: Annotated[
        str,
        "voices (made on the spot), a folder, s3://..., gs://... or hub:... with recordings, or a folder with "
        "segments; empty: the segments are in the store already",
    ] = "voices"
    kind: Annotated[
        Literal["recordings", "segments"], "recordings are cut where nobody speaks; segments are taken as they are"
    ] = "recordings"
    layout: Annotated[
        Literal["flac", "pcm", "npz"], "flac, pcm: few large tar files with an index; npz: one file a segment"
    ] = "flac"
    rate_hz: Annotated[int | None, "sample rate of segments that are cut; none: the recording's own"] = 24_000
    default_rate_hz: Annotated[int | None, "rate of npz files that do not say theirs; none: they are left aside"] = None
    sample: Annotated[
        int | None, "files whose headers are read to profile them; none: all, of many a sample", KEEPS_RESULT
    ] = None
    most_broken_fraction: Annotated[
        float, "share of segments that may be broken, and are left aside; more of them stop the profile", KEEPS_RESULT
    ] = 0.05
    shard_mib: Annotated[float, "size of a tar file, in MiB"] = 256.0
    name_regex: Annotated[str, "what the names of recordings say, as in (?P<channel>[^/]+)/(?P<speaker>[^_]+)_.*"] = ""
    metadata: Annotated[str, "a table with a column recording, and what is known of each"] = ""
    transcripts: Annotated[
        str, "a table of lines (recording, start, end, text, speaker); subtitles beside a recording are found"
    ] = ""
    columns: Annotated[tuple[str, ...], "ROLE=COLUMN where a source's columns have unusual names"] = ()
    expected_hours: Annotated[float | None, "what you believe there is: a contradiction is told", KEEPS_RESULT] = None
    num_channels: Annotated[int, "channels of made-up radio, for source voices"] = 3
    seconds_per_channel: Annotated[float, "length of each, for source voices"] = 60.0
    seed: Annotated[int, "which voices are made"] = 0

    def faults(self) -> Iterator[str]:
        if self.shard_mib <= 0:
            yield f"shard_mib: got {self.shard_mib}, expected more than 0"
        if self.kind == "segments" and self.source == "voices":
            yield "kind: voices are recordings; name a folder of segments as source"
        if self.sample is not None and self.sample < 1:
            yield f"sample: got {self.sample}, expected at least 1, or none"
        if not 0 <= self.most_broken_fraction <= 1:
            yield f"most_broken_fraction: got {self.most_broken_fraction}, expected 0 to 1"
        if not 1 <= self.num_channels:
            yield f"num_channels: got {self.num_channels}, expected at least 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfig:
    """From this machine into the store."""

    channels: Annotated[tuple[str, ...], "only these channels; empty: all"] = ()
    limit: Annotated[int | None, "at most so many files; none: all"] = None
    skip_existing: Annotated[bool, "what the store holds already is not sent again", KEEPS_RESULT] = True
    dry_run: Annotated[bool, "only say what would be sent", KEEPS_RESULT] = False
    workers: Annotated[int | None, "files on their way at once; none: chosen", KEEPS_RESULT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """The neural codec."""

    name: Annotated[
        str,
        "neucodec, mimi, dac, encodec, xcodec2, a Hub id (ORG/NAME@REVISION pins it) or folder of one; "
        "kmeans-mel: fitted on the data",
    ] = "kmeans-mel"
    precision: Annotated[Literal["fp32", "tf32", "bf16", "fp16"], "below fp32 some codes come out otherwise"] = "fp32"
    fit_seconds: Annotated[float, "speech that kmeans-mel is fitted on"] = 120.0
    num_codebooks: Annotated[int, "the first so many codebooks; 0: all of a model's, 6 of kmeans-mel"] = 0
    codebook_size: Annotated[int, "entries of each, of kmeans-mel"] = 256
    seed: Annotated[int, "how kmeans-mel begins"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeConfig:
    """From the store through the codec into the store."""

    output: Annotated[
        Literal["sidecar", "npz"], "sidecar: codes alone, by key; npz: each segment whole again, with its codes"
    ] = "sidecar"
    quota_gib: Annotated[
        float | None, "disk that may be used at any time; none: chosen from what is free", KEEPS_RESULT
    ] = None
    piece_mib: Annotated[float, "speech that is committed together, in MiB"] = 256.0
    channels: Annotated[tuple[str, ...], "only these channels; empty: all"] = ()
    limit: Annotated[int | None, "at most so many segments; none: all"] = None
    dry_run: Annotated[bool, "only say what would be encoded", KEEPS_RESULT] = False
    skip_existing: Annotated[bool, "pieces that are committed are not encoded again", KEEPS_RESULT] = True
    shared: Annotated[bool, "several machines encode at once, and claim what they work on", KEEPS_RESULT] = False
    share: Annotated[
        str,
        "NUMBER/MACHINES from 0, as in 0/2: a share of its own for each machine, where the store does not "
        "honour conditional puts",
        KEEPS_RESULT,
    ] = "0/1"
    most_failed_fraction: Annotated[
        float, "share of a piece's segments that may be unusable, and are left aside; more of them stop", KEEPS_RESULT
    ] = 0.5
    cluster_workers: Annotated[int, "workers on a Ray cluster; 0: this process", KEEPS_RESULT] = 0

    def faults(self) -> Iterator[str]:
        if self.quota_gib is not None and self.quota_gib <= 0:
            yield f"quota_gib: got {self.quota_gib}, expected more than 0, or none"
        if not re.fullmatch(r"\d+/[1-9]\d*", self.share) or not int(self.share.split("/")[0]) < int(
            self.share.split("/")[1]
        ):
            yield f"share: got {self.share}, expected NUMBER/MACHINES with the number from 0, as in 0/2"
        if not 0 <= self.most_failed_fraction <= 1:
            yield f"most_failed_fraction: got {self.most_failed_fraction}, expected 0 to 1"
        if self.piece_mib <= 0:
            yield f"piece_mib: got {self.piece_mib}, expected more than 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig:
    """Some of what was encoded, to listen to."""

    num_segments: Annotated[int, "segments to decode"] = 3
    seed: Annotated[int, "which"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig:
    """A dataset of the Hugging Face Hub."""

    repo: Annotated[str, "USER/NAME of the dataset; empty: the shards stay in the run's folder"] = ""
    endpoint: Annotated[str, "another Hub than huggingface.co, or loopback", KEEPS_RESULT] = ""
    private: Annotated[bool, "make the dataset private", KEEPS_RESULT] = True
    audio: Annotated[bool, "with audio, not codes alone"] = True
    shard_mb: Annotated[float, "size of a Parquet shard, in megabytes"] = 500.0
    split_by: Annotated[Literal["speaker", "channel", "none"], "what stays together in one split"] = "speaker"
    test_fraction: Annotated[float, "share of the test split"] = 0.05
    validation_fraction: Annotated[float, "share of the validation split"] = 0.0
    channels: Annotated[tuple[str, ...], "only these channels; empty: all"] = ()
    limit: Annotated[int | None, "at most so many segments; none: all"] = None
    language: Annotated[str, "ISO 639 code for the card; empty: not stated"] = ""
    licence: Annotated[str, "licence for the card; empty: not stated"] = ""
    title: Annotated[str, "title of the card; empty: the dataset's name"] = ""
    dry_run: Annotated[bool, "only say what would be published", KEEPS_RESULT] = False

    def faults(self) -> Iterator[str]:
        if not 0 <= self.test_fraction + self.validation_fraction < 0.9:
            yield f"test_fraction: with validation_fraction must lie between 0 and 0.9, got {self.test_fraction}"
        if self.shard_mb <= 0:
            yield f"shard_mb: got {self.shard_mb}, expected more than 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsConfig:
    """Voice-cloning pairs and rows to fine-tune a speech model on."""

    most_tokens: Annotated[int, "longer rows are left aside: a cut one would lose its end"] = 2048
    shortest_reference_seconds: Annotated[float, "of the reference"] = 1.0
    longest_reference_seconds: Annotated[float, "of the reference"] = 12.0
    pairs_per_segment: Annotated[int, "references for each target"] = 1
    same_channel: Annotated[bool, "the reference comes from the target's own channel"] = False
    phonemes: Annotated[bool, "write texts as phonemes (espeak-ng), as NeuTTS reads them"] = True
    language: Annotated[str, "espeak-ng's name of the language, as in en-us, ar, fa"] = "en-us"
    seed: Annotated[int, "which references"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of the dataset pipeline."""

    role: Annotated[RoleConfig, "this machine"] = field(default_factory=RoleConfig)
    store: Annotated[StoreConfig, "where the machines meet"] = field(default_factory=StoreConfig)
    segments: Annotated[SegmentsConfig, "speech"] = field(default_factory=SegmentsConfig)
    cut: Annotated[CutRules, "where segments begin and end"] = field(default_factory=CutRules)
    filter: Annotated[Filters, "which segments are kept"] = field(default_factory=Filters)
    upload: Annotated[UploadConfig, "into the store"] = field(default_factory=UploadConfig)
    codec: Annotated[CodecConfig, "codec"] = field(default_factory=CodecConfig)
    encode: Annotated[EncodeConfig, "encoding"] = field(default_factory=EncodeConfig)
    listen: Annotated[ListenConfig, "listening"] = field(default_factory=ListenConfig)
    publish: Annotated[PublishConfig, "dataset on the Hub"] = field(default_factory=PublishConfig)
    pairs: Annotated[PairsConfig, "pairs"] = field(default_factory=PairsConfig)


def demo() -> Config:
    """Offline: made-up radio through an S3 and a Hub that this machine serves to itself.

    It takes under two minutes on two cores.
    """
    return Config(
        store=StoreConfig(address=LOOPBACK),
        segments=SegmentsConfig(layout="npz", rate_hz=16_000),
        encode=EncodeConfig(quota_gib=0.01, piece_mib=2.0),
        pairs=PairsConfig(most_tokens=8192),  # the demo's codec takes 300 tokens a second, NeuCodec 50
        publish=PublishConfig(
            repo="demo/radio-voices", endpoint=LOOPBACK, shard_mb=2.0, test_fraction=0.2, language="en"
        ),
    )


def quick() -> Config:
    """One sitting on a free Colab T4: the development speech of LibriSpeech with Mimi, all in the run's folder."""
    return Config(
        segments=SegmentsConfig(source="hub:openslr/librispeech_asr/clean/validation"),
        codec=CodecConfig(name="mimi"),
        publish=PublishConfig(language="en", licence="cc-by-4.0"),
        pairs=PairsConfig(most_tokens=8192),
    )


def full() -> Config:
    """The real thing: segments of your own through NeuCodec, on any GPU; name store.address and publish.repo."""
    return Config(
        segments=SegmentsConfig(source="", kind="segments"), codec=CodecConfig(name="neucodec"), publish=PublishConfig()
    )


def gcp() -> Config:
    """The machine that holds the recordings: segments, their profile, and the way into the store."""
    return replace(full(), role=RoleConfig(machine="segment"))


def h200() -> Config:
    """The machine with the GPU and little disk: from the store through the codec into the store."""
    return replace(full(), role=RoleConfig(machine="encode"))


def hub() -> Config:
    """Any machine: from the store to the Hub, and the pairs."""
    return replace(full(), role=RoleConfig(machine="publish"))


PRESETS = {"demo": demo, "quick": quick, "full": full, "gcp": gcp, "h200": h200, "hub": hub}
