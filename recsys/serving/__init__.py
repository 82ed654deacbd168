"""Answering without the training stack: nothing here imports torchrec or fbgemm."""
