"""The papers' experiments on the embedded model, and what of their claims is reproduced; see `__main__`."""
