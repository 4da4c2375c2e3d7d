"""Lies in tests/ so that helper modules beside it (small_models) can be imported everywhere."""
import torch

torch.set_num_threads(1)        # the models here are tiny; threads only get in each other's way
