"""The compositional network itself: tensors in, tensors out; no file, no data set, no training."""
