"""Data: where X-rays come from, how they are read, split and checked. Nothing here needs TensorFlow."""
