"""The compositional network: pretraining, files, predictions; new domains are of `adapters`.

Rooms, each importing only what stands before it: `model`, `storage`, `training`; around them what
all share: images and their reading, statistics, what a backbone knows of its sources.
"""

from da_compose.images import ImageSet
from da_compose.inference import DomainModel
from da_compose.model.batched import predict_rows
from da_compose.model.config import PRESETS, NetworkConfig
from da_compose.model.contract import Network, probabilities
from da_compose.model.domain import Domain
from da_compose.model.network import CompositionalNetwork
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.pretrained_config import PretrainedConfig
from da_compose.progress import show_progress
from da_compose.storage.adapter import load_adapter, save_adapter
from da_compose.storage.backbone import Backbone, load_backbone
from da_compose.storage.pretrained_weights import pretrained_network
from da_compose.training.compose import compose
from da_compose.training.directions import DirectionsConfig, learn_templates
from da_compose.training.finetune import FinetuneConfig
from da_compose.training.pretrain import pretrain
from da_compose.training.pretrained import PretrainedRecipe
from da_compose.training.recipes import RECIPES, Recipe
from da_compose.training.tasks import Task, train_tasks

__all__ = [
    "PRESETS",
    "RECIPES",
    "Backbone",
    "CompositionalNetwork",
    "DirectionsConfig",
    "Domain",
    "DomainModel",
    "FinetuneConfig",
    "ImageSet",
    "Network",
    "NetworkConfig",
    "PretrainedConfig",
    "PretrainedNetwork",
    "PretrainedRecipe",
    "Recipe",
    "Task",
    "compose",
    "learn_templates",
    "load_adapter",
    "load_backbone",
    "predict_rows",
    "pretrain",
    "pretrained_network",
    "probabilities",
    "save_adapter",
    "show_progress",
    "train_tasks",
]
