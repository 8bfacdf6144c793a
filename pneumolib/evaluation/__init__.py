"""How good a detector is: arrays in, numbers and figures out. Nothing here needs TensorFlow or reads a data set."""
