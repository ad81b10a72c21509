import numpy as np
import pytest
import torch

from da_compose.images import ImageSet, to_pixels
from da_compose.knowledge import collect_knowledge, embed


def test_moments_equal_the_direct_computation(make_network, make_images) -> None:
    network = make_network()
    sources = {"a": make_images(25), "b": make_images(11, seed=1, colour=True)}
    knowledge = collect_knowledge(network, sources, batch_size=7)
    for name, data in sources.items():
        with torch.no_grad():
            features = network.features(to_pixels(data.images), network.domains[name])[1].double()
        torch.testing.assert_close(knowledge[name].first, features.mean(0).float())
        torch.testing.assert_close(knowledge[name].second, (features**2).mean(0).float())
        assert knowledge[name].num_images == len(data)


def test_moments_of_a_capped_source_are_those_of_that_many_images(
    make_network, make_images
) -> None:
    network, data = make_network(), make_images(30)
    known = collect_knowledge(network, {"a": data}, max_images=10, per_class=100, batch_size=4)["a"]
    assert known.num_images == 10
    assert len(known.labels) == 10  # so the sample is all images that were seen
    torch.testing.assert_close(known.first, known.embeddings.mean(0), rtol=0, atol=5e-3)


def test_sample_is_balanced_and_capped(make_network, make_images) -> None:
    labels = np.repeat([0, 1, 2], [40, 9, 2])
    data = ImageSet(make_images(51).images, labels)
    known = collect_knowledge(make_network(), {"a": data}, per_class=5, batch_size=8)["a"]
    assert torch.bincount(known.labels).tolist() == [5, 5, 2]
    assert known.block_features.shape == (12, 4, 2, 2)
    assert known.block_features.dtype == torch.float16


def test_a_rare_class_of_a_capped_source_is_in_the_sample(make_network, make_images) -> None:
    labels = np.repeat([0, 1, 2], [40, 10, 1])
    data = ImageSet(make_images(51).images, labels)
    for seed in range(5):
        known = collect_knowledge(make_network(), {"a": data}, max_images=8, seed=seed)["a"]
        assert known.labels.unique().tolist() == [0, 1, 2]
        assert known.num_images == 8


def test_absent_classes_are_absent_from_the_sample(make_network, make_images) -> None:
    data = ImageSet(make_images(6).images, np.full(6, 2))
    known = collect_knowledge(make_network(), {"a": data}, per_class=4)["a"]
    assert known.labels.tolist() == [2] * 4
    assert known.first.isfinite().all()


def test_sample_pairs_features_with_their_labels(make_network, make_images) -> None:
    network, data = make_network(), make_images(9)
    known = collect_knowledge(network, {"a": data}, per_class=2, batch_size=4)["a"]
    with torch.no_grad():
        features = network.block_features(to_pixels(data.images), network.domains["a"])
    for kept, label in zip(known.block_features, known.labels.tolist(), strict=True):
        distances = (features - kept.float()).flatten(1).norm(dim=1)
        assert distances.min() < 0.02
        assert data.labels[int(distances.argmin())] == label


def test_embeddings_are_those_of_the_stored_features(make_network, make_images) -> None:
    network = make_network()
    known = collect_knowledge(network, {"a": make_images(9)})["a"]
    expected = network.embed_block_features(known.block_features.float(), network.domains["a"])
    torch.testing.assert_close(known.embeddings, expected.detach())
    assert embed(network, known.block_features, network.domains["a"]).equal(known.embeddings)
    assert not known.embeddings.requires_grad


def test_collecting_changes_nothing_in_the_network(make_network, make_images) -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    collect_knowledge(network, {"a": make_images(9)})
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_sample_depends_on_the_seed_alone(make_network, make_images) -> None:
    sources = {"a": make_images(30)}
    first, same, other = (
        collect_knowledge(make_network(), sources, per_class=2, seed=seed)["a"].block_features
        for seed in (0, 0, 1)
    )
    assert first.equal(same)
    assert not first.equal(other)


def test_unknown_source_is_refused(make_network, make_images) -> None:
    with pytest.raises(ValueError, match="no domain 'c'"):
        collect_knowledge(make_network(), {"c": make_images(3)})


def test_features_of_many_classes_take_no_more_than_is_said(make_network, make_images) -> None:
    network, data = make_network(("a",)), {"a": make_images(30)}
    size = 2 * 4 * 2 * 2  # bytes of one image's features
    kept = collect_knowledge(network, data, most_bytes=3 * 2 * size)["a"]
    assert kept.labels.bincount().tolist() == [2, 2, 2]
    assert collect_knowledge(network, data, most_bytes=0)["a"].labels.bincount().tolist() == [1] * 3
