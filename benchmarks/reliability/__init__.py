"""A campaign for what is wrong in silence: each trial ends right, refused in one line, or wrong."""
