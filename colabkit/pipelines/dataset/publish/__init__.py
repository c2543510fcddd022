"""The step that publishes: a dataset of the Hub, shard by shard, with its card."""
