"""Questions asked once, each a command of its own whose rows the defaults rest on."""
