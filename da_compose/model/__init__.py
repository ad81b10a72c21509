"""The compositional network itself: tensors in, tensors out. No file, data set or training here."""
