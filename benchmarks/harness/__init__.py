"""A benchmark from its domains to result rows: what is trained, measured and kept."""
