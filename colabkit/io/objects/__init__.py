"""Objects that are read and written: S3 and what speaks like it, Google Cloud Storage, buckets of the Hub, folders."""
