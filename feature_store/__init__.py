"""What the rows of a log mean and how they lie on disk. Never imports torch."""
