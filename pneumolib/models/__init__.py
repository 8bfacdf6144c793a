"""Networks, augmentation, training, and the detector that comes out of it."""
