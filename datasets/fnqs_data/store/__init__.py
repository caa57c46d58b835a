"""Data sets on the disk: records, their shards, manifests and splits."""
