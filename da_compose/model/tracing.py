"""An ordinary module as a graph, cut into stem, blocks and head, for `PretrainedNetwork`."""

import inspect
from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node, Tracer
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = (nn.LayerNorm, nn.GroupNorm)  # with gamma and beta, beside batch norms; no statistics


class Sections(NamedTuple):
    """A module in three parts that follow each other, each of one value in and out.

    stem: normalized images (B, 3, S, S) -> what the first block takes. body: to the last block's
    output. head: to the embedding (B, F).
    """

    stem: GraphModule
    body: GraphModule
    head: GraphModule


class _Leaves(Tracer):
    """Looks into no module without parts, none of torch's, no batch norm with its activation.

    So what runs is called as it is: padding that depends on the size, say, is no part of the graph.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        torchs_own = super().is_leaf_module(m, module_qualified_name)
        return torchs_own or isinstance(m, _BatchNorm) or not any(True for _ in m.children())


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes, with a gamma and beta of its own."""
    return isinstance(module, (_BatchNorm, *NORMS))


def find_blocks(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's blocks: parts of its lists that have parts, in order.

    A part of a list that holds a list of such parts itself, as a stage does, is looked into.
    """
    found: list[str] = []

    def look(at: nn.Module, name: str, in_list: bool) -> None:
        listed = isinstance(at, (nn.Sequential, nn.ModuleList))
        if in_list and not listed and _has_parts(at) and not _is_stage(at):
            found.append(name)
            return
        for child_name, child in at.named_children():
            look(child, f"{name}.{child_name}".lstrip("."), listed)

    look(module, "", False)
    return tuple(found)


def _has_parts(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def _is_stage(module: nn.Module) -> bool:
    """Whether one of its lists has two parts of one class that are no lists and have parts."""
    for part in module.modules():
        if isinstance(part, (nn.Sequential, nn.ModuleList)):
            kinds = [type(p) for p in part if _has_parts(p) and not isinstance(p, nn.Sequential)]
            if len(kinds) > len(set(kinds)):
                return True
    return False


def cut(module: nn.Module, blocks: Sequence[str]) -> Sections:
    """Trace a copy of `module`, in evaluation, and cut it around its blocks.

    A linear map at the very end is a classifier, and left out. Raises ValueError where the module
    cannot be traced or cut there.
    """
    name = type(module).__name__
    names = dict(module.named_modules())
    if not blocks:
        raise ValueError(
            f"no blocks found in {name}; name them, first to last: blocks=('layer1.0', ...)"
        )
    if unknown := [block for block in blocks if block not in names]:
        raise ValueError(f"{name} has no part {', '.join(unknown)}; blocks are named as its parts")
    try:
        module = deepcopy(module).eval().requires_grad_(False)
    except RuntimeError as error:
        raise ValueError(
            f"{name} cannot be copied, as weights of it are computed anew by hooks, as of pruning; "
            "make them parameters first: torch.nn.utils.prune.remove, remove_weight_norm"
        ) from error
    for part in module.modules():
        _check_batch_norm(part, name)
    try:
        graph = _trace(module)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} cannot be traced by torch.fx ({said}); its forward may not depend on values"
        ) from error
    nodes = list(graph.nodes)
    _check_called_once(nodes, module, name)
    inside = [n for n, node in enumerate(nodes) if _layer(node, blocks) is not None]
    if not inside:
        raise ValueError(f"{name} never calls its parts {', '.join(blocks)}")
    first, last = inside[0], inside[-1] + 1
    end = _embedding(nodes, module)
    into = _crossing(nodes, first, name, "the first block")
    out = _crossing(nodes, last, name, "the last block")
    return Sections(
        _section(module, nodes[:first], None, into),
        _section(module, nodes[first:last], into, out),
        _section(module, nodes[last:], out, end),
    )


def _trace(module: nn.Module) -> Graph:
    """The graph of a module's first argument; others stay at their defaults."""
    _, *others = inspect.signature(module.forward).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    graph = _Leaves().trace(module, {one.name: one.default for one in others if one.kind in named})

    def forget(node: Node) -> None:
        for user in list(node.users):
            forget(user)  # asserts that a default is what it was
        graph.erase_node(node)

    _, *unused = [node for node in graph.nodes if node.op == "placeholder"]
    for node in unused:
        forget(node)
    return graph


def _check_batch_norm(part: nn.Module, name: str) -> None:
    if isinstance(part, _BatchNorm) and part.running_mean is None:
        raise ValueError(
            f"a batch norm of {name} keeps no running statistics, which a domain starts from; "
            "set track_running_stats=True"
        )
    known = type(part).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    timms = hasattr(part, "drop") and hasattr(part, "act")  # after the norm
    if isinstance(part, _BatchNorm) and not known and not timms:
        raise ValueError(
            f"{name} has batch norms of class {type(part).__name__}, whose forward is their own; "
            "expected torch's or timm's"
        )
    if isinstance(part, _BatchNorm) and (part._forward_hooks or part._forward_pre_hooks):
        raise ValueError(
            f"a batch norm of {name} has hooks, which would not run: each domain has statistics of "
            "its own; remove them, or hook the part after it"
        )


def _check_called_once(nodes: Sequence[Node], module: nn.Module, name: str) -> None:
    called = [
        str(node.target)
        for node in nodes
        if node.op == "call_module"
        and isinstance(module.get_submodule(str(node.target)), _BatchNorm)
    ]
    if twice := {one for one in called if called.count(one) > 1}:
        raise ValueError(f"{name} uses batch norm {', '.join(sorted(twice))} more than once")


def _layer(node: Node, blocks: Sequence[str]) -> int | None:
    """The block that a node is of."""
    stack = node.meta.get("nn_module_stack", {})
    paths = [str(node.target)] if node.op in ("call_module", "get_attr") else []
    paths += [str(entry[0]) if isinstance(entry, tuple) else str(entry) for entry in stack.values()]
    for path in paths:
        if (layer := layer_of(path, blocks)) is not None:
            return layer
    return None


def layer_of(name: str, blocks: Sequence[str]) -> int | None:
    """The block that a part of this name is of."""
    for layer, block in enumerate(blocks):
        if name == block or name.startswith(f"{block}."):
            return layer
    return None


def layers_before(sections: Sequence[GraphModule], blocks: Sequence[str]) -> dict[str, int]:
    """The layer of each weight of sections from the first block on, in the order they are used.

    It is that of the weight's own block or, where it is of none, of the last block before.
    """
    found, layer = dict[str, int](), 0
    for section in sections:
        for node in section.graph.nodes:
            if node.op not in ("call_module", "get_attr"):
                continue
            target = str(node.target)
            own = layer_of(target, blocks)
            layer = layer if own is None else own
            for name, _ in section.named_parameters(remove_duplicate=False):
                if name == target or name.startswith(f"{target}."):
                    found.setdefault(name, layer)
    return found


def _embedding(nodes: Sequence[Node], module: nn.Module) -> Node:
    """What the classifier takes, or else what the module returns."""
    output = nodes[-1].args[0]
    if not isinstance(output, Node):
        raise ValueError(
            f"{type(module).__name__} returns a {type(output).__name__}, expected one tensor"
        )
    at = output
    while at.op == "call_module" and isinstance(at.args[0], Node):
        part = module.get_submodule(str(at.target))
        if isinstance(part, nn.Linear):
            return at.args[0]
        if not isinstance(part, (nn.Dropout, nn.Identity)):
            break
        at = at.args[0]
    return output


def _crossing(nodes: Sequence[Node], place: int, name: str, where: str) -> Node:
    """The one value that nodes from `place` on take of those before."""
    before = set(nodes[:place])
    taken = {
        source: None
        for node in nodes[place:]
        for source in node.all_input_nodes
        if source in before and source.op != "get_attr"
    }
    if len(taken) != 1:
        raise ValueError(
            f"{name} cannot be cut at {where}: {len(taken)} values pass there, expected one; "
            "name other blocks"
        )
    return next(iter(taken))


def _section(module: nn.Module, nodes: Sequence[Node], into: Node | None, out: Node) -> GraphModule:
    """Some nodes of a graph as a module of their own; what leads nowhere is left out."""
    graph, copies = Graph(), dict[Node, Node]()
    if into is not None:
        copies[into] = graph.placeholder("features")

    def copied(node: Node) -> Node:
        if node not in copies:  # a tensor of the module that an earlier section uses too
            assert node.op == "get_attr"
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in nodes:
        if node.op != "output":
            copies[node] = graph.node_copy(node, copied)
        if node is out:
            break
    graph.output(copied(out))
    section = GraphModule(module, graph)
    section.graph.eliminate_dead_code()
    section.delete_all_unused_submodules()
    section.recompile()
    return section


@torch.no_grad()
def dry_run(sections: Sections, size: int) -> tuple[Tensor, Tensor]:
    """Output of the last block and embedding of one blank image; ValueError where it is none."""
    device = next((one.device for part in sections for one in part.parameters()), None)
    try:
        block = sections.body(sections.stem(torch.zeros(1, 3, size, size, device=device)))
        embedding = sections.head(block)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"the network does not take images of {size} pixels ({error}); try its own size"
        ) from error
    if embedding.ndim != 2:
        raise ValueError(
            f"the network ends in {tuple(embedding.shape)} for an image, expected an embedding "
            "(1, F) before its classifier"
        )
    return block, embedding
