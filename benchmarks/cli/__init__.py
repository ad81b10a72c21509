"""The command line: each command parses, calls one function, prints; nothing is computed here."""
