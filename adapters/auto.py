"""`strategy="auto"`: the next strategy where the guard does not trust the one before.

Information maximization gains most where the backbone knows the domain well. Where it does not, it
runs away and the guard refuses it; moment matching moves less, and may still help. The guard alone
chooses: a criterion that compares outcomes was tried, and kept what had learned least
(benchmarks/LOG.md).
"""

from adapters.config import AUTO_TRIES, STRATEGIES
from adapters.run import Run, learn

START = "start"


def learn_trusted(run: Run) -> None:
    """Learn by the first of `AUTO_TRIES` whose outcome the guard trusts, each from the start.

    `notes["chosen"]` names it, or says `start`: then none has learned anything that is trusted, and
    history, guard and last iterate are the last one's.
    """
    for name in AUTO_TRIES:
        method = STRATEGIES[name]
        assert method is not None, f"{name} takes no steps"
        run.restart(name)
        learn(run, method)
        if run.notes["kept_step"] > 0:
            run.notes["chosen"] = name
            return
    run.notes["chosen"] = START
