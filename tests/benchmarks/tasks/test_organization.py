import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.tasks.organization import agreement, early_and_late, mixture_distances

few = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 999)


def random_mixtures(seed: int, num_tasks: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(num_tasks, 4, 3, generator=generator)).softmax(dim=-1)


def test_distances_of_known_mixtures() -> None:
    mixtures = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.75, 0.25]]])
    expected = [[[0, 1], [1, 0]], [[0, 0.25], [0.25, 0]]]
    assert mixture_distances(mixtures).tolist() == expected


@few
@given(seed=seeds)
def test_distances_equal_a_slow_loop(seed: int) -> None:
    mixtures = random_mixtures(seed)
    distances = mixture_distances(mixtures)
    assert distances.shape == (4, 5, 5)
    for layer in range(4):
        for one in range(5):
            for other in range(5):
                pairs = zip(mixtures[one, layer], mixtures[other, layer], strict=True)
                expected = sum(abs(float(p) - float(q)) for p, q in pairs) / 2
                assert distances[layer, one, other].item() == pytest.approx(expected, abs=1e-6)


@few
@given(seed=seeds)
def test_distances_are_a_bounded_metric(seed: int) -> None:
    distances = mixture_distances(random_mixtures(seed))
    assert distances.equal(distances.mT)
    assert not distances.diagonal(dim1=1, dim2=2).any()
    assert (distances >= 0).all() and (distances <= 1).all()
    detours = distances[:, :, :, None] + distances[:, None, :, :]  # (L, from, over, to)
    assert (distances[:, :, None] <= detours + 1e-6).all()


@few
@given(seed=seeds, order=st.permutations(range(5)))
def test_order_of_tasks_and_names_of_groups_do_not_matter(seed: int, order: list[int]) -> None:
    mixtures, groups = random_mixtures(seed), ["x", "y", "x", "z", "y"]
    distances = mixture_distances(mixtures)
    permuted = mixture_distances(mixtures[order])
    assert permuted.equal(distances[:, order][:, :, order])
    other_names = [{"x": "y", "y": "edges", "z": "x"}[groups[task]] for task in order]
    torch.testing.assert_close(agreement(permuted, other_names), agreement(distances, groups))


def test_agreement_tells_layers_shared_within_groups_from_layers_shared_across() -> None:
    """As in the paper's Figure 2: transforms share the early layer, data sets the late one."""
    tasks = [(transform, data) for transform in range(2) for data in range(2)]
    mixtures = torch.stack([torch.eye(2)[list(task)] for task in tasks])  # (4, 2, 2)
    distances = mixture_distances(mixtures)
    by_transform = agreement(distances, [f"transform {transform}" for transform, _ in tasks])
    by_data = agreement(distances, [f"data {data}" for _, data in tasks])
    assert by_transform.tolist() == [1, -0.5]
    assert by_data.tolist() == [-0.5, 1]


def test_agreement_is_a_difference_of_means_over_pairs() -> None:
    distances = torch.zeros(1, 3, 3)
    for (one, other), distance in {(0, 1): 0.2, (0, 2): 0.5, (1, 2): 0.9}.items():
        distances[0, one, other] = distances[0, other, one] = distance
    (value,) = agreement(distances, ["x", "x", "y"]).tolist()
    assert value == pytest.approx((0.5 + 0.9) / 2 - 0.2)


@few
@given(seed=seeds)
def test_agreement_of_equal_tasks_is_zero(seed: int) -> None:
    distances = mixture_distances(random_mixtures(seed, num_tasks=1).repeat(4, 1, 1))
    assert not agreement(distances, ["x", "x", "y", "y"]).any()


@pytest.mark.parametrize("groups", [["x", "x", "x"], ["x", "y", "z"]])
def test_groups_without_pairs_to_compare_are_refused(groups: list[str]) -> None:
    with pytest.raises(ValueError, match=f"needs both; got the groups {', '.join(groups)}"):
        agreement(torch.zeros(2, 3, 3), groups)


def test_groups_of_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="2 groups named for 3 tasks; name one for each"):
        agreement(torch.zeros(2, 3, 3), ["x", "y"])


def test_mixtures_of_one_task_alone_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(tasks, layers, templates\), got \(4, 3\)"):
        mixture_distances(torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("values", "means"),
    [([1, 3, 5, 9], (2, 7)), ([1, 3, 100, 5, 9], (2, 7)), ([1, 2], (1, 2))],
)
def test_halves_leave_out_the_middle_layer(values: list[float], means: tuple[float, float]) -> None:
    assert early_and_late(torch.tensor(values).float()) == means


def test_one_layer_has_no_halves() -> None:
    with pytest.raises(ValueError, match="at least 2 layers, got 1"):
        early_and_late(torch.zeros(1))
