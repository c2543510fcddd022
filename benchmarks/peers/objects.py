"""One client's upload of a folder to a bucket on loopback: NAME FOLDER URL AUTHORITY.

Run by objects_upload.py, on one core.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BUCKET, THREADS = "bucket", 32


def colabkit(folder: str, url: str, authority: str) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from colabkit.io.places import S3Profile, open_place
    from colabkit.io.transfer.upload import upload_folder

    profile = S3Profile.find(BUCKET, endpoint=url, ca_bundle=authority)
    print(upload_folder(folder, open_place(f"s3://{BUCKET}/p", profile=profile)))


def boto3(folder: str, url: str, authority: str) -> None:
    import boto3 as library
    from botocore.config import Config

    config = Config(
        max_pool_connections=THREADS, request_checksum_calculation="when_required", s3={"addressing_style": "path"}
    )
    client = library.client("s3", endpoint_url=url, verify=authority, config=config)

    def put(path: Path) -> None:
        with open(path, "rb") as file:
            client.put_object(Bucket=BUCKET, Key=f"p/{path.name}", Body=file)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, sorted(Path(folder).iterdir())))


def s3fs(folder: str, url: str, authority: str) -> None:
    import s3fs as library

    system = library.S3FileSystem(
        endpoint_url=url,
        client_kwargs={"verify": authority},
        config_kwargs={
            "request_checksum_calculation": "when_required",
            "max_pool_connections": THREADS,
            "s3": {"addressing_style": "path"},
        },
    )
    system.put(folder + os.sep, f"{BUCKET}/p/", recursive=True, batch_size=THREADS)


if __name__ == "__main__":
    {"colabkit": colabkit, "boto3": boto3, "s3fs": s3fs}[sys.argv[1]](*sys.argv[2:])
