"""`strategy="auto"`: the next strategy where the guard does not trust the one before.

The guard alone chooses: a criterion that compares outcomes was tried, and kept what had learned
least. And where predictions hardly tell a domain's images apart, no strategy is worth a second try:
what passes the guard there changes little, and as often for the worse (benchmarks/LOG.md).
"""

from adapters.config import AUTO_TRIES, STRATEGIES
from adapters.loop import Run, learn
from adapters.selection import LEAST_CERTAINTY, certainty
from da_compose import probabilities

START = "start"


def learn_trusted(run: Run) -> None:
    """Learn by the first of `AUTO_TRIES` that learns what the guard trusts, each from the start.

    From an unsure start (`certainty` below `LEAST_CERTAINTY`) only the first is tried.
    `notes["chosen"]` names it, or says `start`: then none has learned anything that is trusted, and
    history, guard and last iterate are the last one's.
    """
    unsure = certainty(probabilities(run.start)) < LEAST_CERTAINTY
    for name in AUTO_TRIES[:1] if unsure else AUTO_TRIES:
        method = STRATEGIES[name]
        assert method is not None, f"{name} takes no steps"
        run.restart(name)
        learn(run, method)
        if run.notes["kept_step"] > 0:
            run.notes["chosen"] = name
            return
    run.notes["chosen"] = START
