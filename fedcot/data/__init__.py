"""Records, loaders and partitions."""
