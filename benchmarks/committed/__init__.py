"""The committed results and the pages made of them: updated by a command, never by a run."""
