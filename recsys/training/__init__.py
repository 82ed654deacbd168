"""The one loop, its checkpoints, and the one place that knows of several processes."""
