"""Single values of a Parquet file by byte range, page by page, however large its row groups are."""
