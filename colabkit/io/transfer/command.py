"""colabkit store: look at a store, send a folder into it, fetch objects out of it."""

from __future__ import annotations

import argparse
from typing import Any

_LOOK = (
    "how the store is reached, and what it honours: conditional puts, ranges, parts, deletion "
    "(a few small objects are tried)"
)
_UPLOAD = "send a folder; what is there already is not sent again"
_DOWNLOAD = "fetch objects into a folder; what is there already is not fetched again"
_ADDRESS = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://buckets/NAMESPACE/NAME or a folder"


def add_command(commands: Any) -> None:
    """Add the command `store` to the command line."""
    command = commands.add_parser(
        "store", help="look at an object store, send a folder into it, fetch objects out of it"
    )
    actions = command.add_subparsers(required=True, metavar="ACTION")
    look = actions.add_parser("look", help=_LOOK, description=_LOOK)
    look.add_argument("address", metavar="ADDRESS", help=_ADDRESS)
    look.set_defaults(command=_look)
    upload = actions.add_parser("upload", help=_UPLOAD, description=_UPLOAD)
    upload.add_argument("folder", metavar="FOLDER", help="folder of this machine")
    upload.add_argument("address", metavar="ADDRESS", help=_ADDRESS)
    _add_choice(upload)
    upload.set_defaults(command=_upload)
    download = actions.add_parser("download", help=_DOWNLOAD, description=_DOWNLOAD)
    download.add_argument("address", metavar="ADDRESS", help=_ADDRESS)
    download.add_argument("folder", metavar="FOLDER", help="folder of this machine")
    download.add_argument(
        "--quota-gib", type=float, metavar="GIB", help="size that the folder may have (default: what is free)"
    )
    _add_choice(download)
    download.set_defaults(command=_download)


def _add_choice(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--channel", action="append", default=[], metavar="NAME", help="only this channel; may be repeated"
    )
    command.add_argument("--limit", type=int, metavar="N", help="at most so many files")
    command.add_argument("--workers", type=int, metavar="N", help="files on their way at once (default: chosen)")
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")
    command.add_argument("--again", action="store_true", help="what is there already, too")


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "channels": options.channel,
        "limit": options.limit,
        "workers": options.workers,
        "dry_run": options.dry_run,
        "skip_existing": not options.again,
    }


def _look(options: argparse.Namespace) -> None:
    from colabkit.io.places import open_place
    from colabkit.io.places.probe import probe

    objects = open_place(options.address)
    if (profile := getattr(objects, "profile", None)) is not None:
        print(profile.table())
    print(probe(objects).table())


def _upload(options: argparse.Namespace) -> None:
    from colabkit.io.places import open_place
    from colabkit.io.transfer.upload import upload_folder

    print(upload_folder(options.folder, open_place(options.address), **_chosen(options)).table())


def _download(options: argparse.Namespace) -> None:
    from colabkit.io.places import open_place
    from colabkit.io.transfer.download import download

    quota_bytes = None if options.quota_gib is None else int(options.quota_gib * 2**30)
    print(download(open_place(options.address), options.folder, quota_bytes=quota_bytes, **_chosen(options)).table())
