"""Files of this package: whole or absent, checked when read; what a backbone and an adapter are."""
