"""What lists that were never shown would have been worth, from a log of those that were."""
