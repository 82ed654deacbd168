"""Embedding tables: their layout (which id lies in which row) and their TorchRec collections."""
