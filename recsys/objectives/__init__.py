"""What models learn from: losses, negatives, targets."""
