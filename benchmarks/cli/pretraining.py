"""What `da-compose pretrain` does: labelled domains of digits or of pictures to a backbone file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cli.mixture_options import MixtureOptions
from benchmarks.harness import digit_benchmark, picture_benchmarks
from benchmarks.harness.benchmark import load_digits
from benchmarks.harness.cells import accuracy
from benchmarks.harness.plan import Profile
from da_compose import Backbone, CompositionalNetwork, PretrainedRecipe
from da_compose.folders import any_picture
from da_compose.parallel import as_process_0_says, process_0_first, rank
from da_compose.storage.schema import check_class_names
from da_compose.storage.trunk_weights import load_trunk_weights
from da_compose.training.pretrain import finished, train_backbone
from da_compose.training.pretrained import (
    PRETRAINED_RECIPES,
    finetune_backbone,
    usual_recipe,
)
from da_compose.training.recipes import (
    DIGIT_RECIPES,
    PICTURE_RECIPES,
    Recipe,
    usual_patch_size,
)
from da_compose.training.trainer import PretrainConfig
from data_prep import (
    DomainUnavailable,
    PictureBenchmark,
    PreparedDomain,
    choose_picture_benchmark,
    load_digit_domain,
    load_picture_domain,
)
from data_prep.digits import NUM_CLASSES

RANDOM = "random"  # trunk weights that are no weights


def pretrain_digits(
    out: Path,
    *,
    recipe: str,
    network: str,
    mixtures: MixtureOptions,
    sources: Sequence[str],
    target: str | None,
    steps: int | None,
    data_root: Path | None,
    seed: int,
    device: str,
    save_every: int | None = None,
) -> Iterator[str]:
    """Pretrain on digit domains and write the backbone; lines with each source's test accuracy."""
    _check_target(target, sources)
    made = _recipe(DIGIT_RECIPES, recipe)
    config = _config(made, digit_benchmark.PROFILES, steps, seed, mixtures)
    model = mixtures.network(made.network_of(network), seed).to(device)
    with process_0_first():  # it alone downloads and prepares
        names = sources or load_digits(data_root, target).sources
        domains = {name: load_digit_domain(name, data_root=data_root) for name in names}
    class_names = tuple(map(str, range(NUM_CLASSES)))
    notes = {"recipe": recipe} | mixtures.given
    yield from _pretrain(out, model, domains, class_names, config, notes, save_every)


def pretrain_pictures(
    out: Path,
    name: str,
    *,
    image_size: int | None = None,
    patch_size: int | None = None,
    classes: Path | None = None,
    per_class: int | None = None,
    trunk: str | None = None,
    trunk_weights: str | None = None,
    recipe: str | None,
    network: str,
    mixtures: MixtureOptions,
    sources: Sequence[str],
    target: str | None,
    steps: int | None,
    data_root: Path | None,
    seed: int,
    device: str,
    save_every: int | None = None,
) -> Iterator[str]:
    """The same on domains of pictures: a benchmark by name, or a folder <domain>/<class>/<picture>.

    trunk_weights: what `load_trunk_weights` takes, or `random` for a trial. recipe: None is
    `usual_recipe`, and from scratch where an option asks for a network of our own.
    """
    _check_target(target, sources)
    if (trunk is None) != (trunk_weights is None):
        raise ValueError(
            "a trunk and its weights are given together: --trunk resnet18.layer3 --trunk-weights "
            f"FILE or download; for a trial with a useless trunk: {RANDOM}"
        )
    own_network = bool(trunk or patch_size or mixtures.given or network == "unshared")
    recipe = recipe or ("strong" if own_network else usual_recipe(image_size))
    made = _picture_recipe(recipe, own_network)
    image_size = image_size or made.image_size
    chosen = choose_pictures(name, data_root, classes, per_class, sources, target)
    if len(chosen.class_names) < 2:
        raise ValueError(
            f"{name} has one class, {', '.join(chosen.class_names)}; expected at least two folders "
            "as <domain>/<class>/<picture>"
        )
    notes: dict[str, Any] = {"recipe": recipe} | mixtures.given
    if isinstance(made, PretrainedRecipe):
        yield f"recipe {recipe}: on {made.network}; from scratch: --recipe strong"
        domains = _picture_sources(chosen, image_size)
        yield from _notes_of(chosen, domains)
        made = made.at_size(image_size)
        names = check_class_names(chosen.class_names)
        yield from _finetune(
            out, made, domains, names, notes, steps or made.num_steps, seed, device, save_every
        )
        return
    shape = replace(
        made.network_of(network),
        num_classes=len(chosen.class_names),
        image_size=image_size,
        patch_size=patch_size or (1 if trunk else usual_patch_size(image_size)),
        trunk=trunk,
    )
    model = mixtures.network(shape, seed)  # before the pictures: it may be refused
    if trunk_weights not in (None, RANDOM):
        with process_0_first():
            load_trunk_weights(model, trunk_weights)
    domains = _picture_sources(chosen, image_size)
    yield from _notes_of(chosen, domains)
    config = _config(made, picture_benchmarks.PROFILES, steps, seed, mixtures)
    notes |= {"trunk_weights": trunk_weights} if trunk else {}
    names, model = check_class_names(chosen.class_names), model.to(device)
    yield from _pretrain(out, model, domains, names, config, notes, save_every)


def _picture_recipe(name: str, own_network: bool) -> Recipe | PretrainedRecipe:
    """The recipe; refused where it has a network and an option asks for one of our own."""
    pretrained = PRETRAINED_RECIPES.get(name)
    if pretrained is not None and own_network:
        raise ValueError(
            f"recipe {name} has a network of its own, with templates that it learns; leave out "
            "trunk, patch size, signatures, penalties and --network unshared (it is xi = 0)"
        )
    return pretrained or _recipe(PICTURE_RECIPES, name)


def _notes_of(chosen: PictureBenchmark, domains: Mapping[str, PreparedDomain]) -> Iterator[str]:
    """What a reader should know of the pictures; said by one process."""
    if rank() == 0:
        yield from (f"note: {note}" for note in chosen.notes)
        yield from (f"note: {note}" for d in domains.values() for note in domain_notes(d))


def _picture_sources(chosen: PictureBenchmark, image_size: int) -> dict[str, PreparedDomain]:
    """The domains, prepared, by a name of one word; each class has a picture in one of them."""
    names = [domain_name(folder, f"source-{n}") for n, folder in enumerate(chosen.domains, 1)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"domains need different names of one word each, got {', '.join(names)} from "
            f"{', '.join(chosen.domains)}; rename a folder"
        )
    with process_0_first():  # it alone downloads and prepares
        found = {
            word: load_picture_domain(chosen, folder, size=image_size)
            for word, folder in zip(names, chosen.domains, strict=True)
        }
    held = {label for domain in found.values() for label in domain.train.labels.tolist()}
    if missing := [name for n, name in enumerate(chosen.class_names) if n not in held]:
        raise ValueError(
            f"no source has a readable training picture of {', '.join(missing)}; add some, or "
            "name the other classes by --classes"
        )
    return found


def choose_pictures(
    name: str,
    data_root: Path | None,
    classes: Path | None,
    per_class: int | None,
    sources: Sequence[str] = (),
    target: str | None = None,
) -> PictureBenchmark:
    """A picture benchmark by name or folder; a folder of one domain is refused as what it is."""
    try:
        return choose_picture_benchmark(
            name, data_root, classes=classes, per_class=per_class, sources=sources, target=target
        )
    except DomainUnavailable as error:
        if any_picture(Path(name).glob("*/*")):
            raise ValueError(
                f"{name} is one domain, <class>/<picture>; expected a folder of domains, "
                "<domain>/<class>/<picture>: move it into a folder of its own"
            ) from error
        raise


def domain_notes(domain: PreparedDomain) -> Iterator[str]:
    """What a reader should know of a prepared domain, and where its problems are listed."""
    yield from (f"{domain.name}: {note}" for note in domain.notes)
    if domain.problems is not None:
        yield f"{domain.name}: see {domain.problems}"


def domain_name(text: str, default: str) -> str:
    """The text as the one word that a domain's name must be."""
    word = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")
    return word or default


def _check_target(target: str | None, sources: Sequence[str]) -> None:
    if target in sources:
        raise ValueError(f"{target} is a source and the target; leave one of the two out")


def _recipe(recipes: Mapping[str, Recipe], name: str) -> Recipe:
    if name not in recipes:
        raise ValueError(f"no recipe {name} here; choose from {', '.join(recipes)}")
    return recipes[name]


def _config(
    recipe: Recipe,
    profiles: Mapping[str, Profile],
    steps: int | None,
    seed: int,
    mixtures: MixtureOptions,
) -> PretrainConfig:
    return replace(
        recipe.pretraining,
        steps=steps or recipe.longer * profiles["quick"].pretrain_steps,
        regularization=mixtures.regularization,
        seed=seed,
    )


def _pretrain(
    out: Path,
    model: CompositionalNetwork,
    domains: Mapping[str, PreparedDomain],
    class_names: tuple[str, ...],
    config: PretrainConfig,
    notes: dict[str, Any],
    save_every: int | None,
) -> Iterator[str]:
    """Pretrain, write the backbone with its knowledge of the sources, and test it on them.

    Several processes of one group (`process_group`) train together; process 0 alone writes.
    """
    train = {name: domain.train for name, domain in domains.items()}
    data = {name: domain.fingerprint for name, domain in domains.items()}
    notes = notes | {"seed": config.seed, "steps": config.steps, "data": data}
    if as_process_0_says(out.exists(), model.device):
        finished(out, notes, "cpu", model.config)
        yield from [f"{out} is finished: nothing to do"] if rank() == 0 else []
        return
    backbone = train_backbone(
        model, train, config, class_names, out,
        notes=notes, held_out={name: domain.test for name, domain in domains.items()},
        save_every=save_every,
    )  # fmt: skip
    if rank() == 0:
        yield from _tested(out, backbone, domains)


def _finetune(
    out: Path,
    recipe: PretrainedRecipe,
    domains: Mapping[str, PreparedDomain],
    class_names: tuple[str, ...],
    notes: dict[str, Any],
    steps: int,
    seed: int,
    device: str,
    save_every: int | None,
) -> Iterator[str]:
    """The same on published weights, templates included; in one process."""
    data = {name: domain.fingerprint for name, domain in domains.items()}
    notes = notes | {"seed": seed, "steps": steps, "data": data}
    if out.exists():
        finished(out, notes, "cpu")
        yield f"{out} is finished: nothing to do"
        return
    backbone = finetune_backbone(
        recipe,
        {name: domain.train for name, domain in domains.items()},
        class_names,
        out,
        steps=steps,
        seed=seed,
        device=device,
        save_every=save_every,
        notes=notes,
    )
    yield from _tested(out, backbone, domains)


def _tested(out: Path, backbone: Backbone, domains: Mapping[str, PreparedDomain]) -> Iterator[str]:
    """What was written, and its accuracy on each source's held-out images."""
    yield f"wrote {out}"
    for name, domain in domains.items():
        percent = accuracy(backbone, backbone.network.domains[name], domain.test)
        yield f"{name}: accuracy {percent:.2f} % of {len(domain.test):,} held-out test images"
