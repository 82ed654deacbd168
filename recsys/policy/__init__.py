"""What to show beside the best: exploring lists, arms, and the log of what was shown.

Nothing here imports torch.
"""
