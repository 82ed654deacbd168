"""Faults on purpose: kills and full disks at any step of a small job, and what is left behind."""
