"""From behaviour logs to batches: event logs, text, the corpus on disk, views and packing."""
