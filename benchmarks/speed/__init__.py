"""Speed measured as ratios: two ways to do the same, in alternation, in one run."""
