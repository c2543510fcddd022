"""From a store through a codec into a store: overlapped, within a disk quota, and exactly once."""
