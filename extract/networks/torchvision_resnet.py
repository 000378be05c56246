"""torchvision's ResNets, taken apart by the names of their parts."""

from collections import OrderedDict
from copy import deepcopy

from torch import nn
from torchvision.models import ResNet

from extract.networks.parts import Network


class TorchvisionResNet(Network):
    """A ResNet of torchvision: everything up to its own pooling is the feature sub-network.

    Its FC layer is replaced by one for K classes, drawn from torch's global generator.
    """

    def __init__(self, model: ResNet, n_classes: int):
        parts = OrderedDict(item for item in model.named_children() if item[0] not in ("avgpool", "fc"))
        super().__init__(nn.Sequential(parts), nn.Linear(model.fc.in_features, n_classes))
        model.fc = nn.Identity()
        self._whole = (model,)  # in a tuple, so that no tensor has two names in state dicts

    @property
    def backbone_prefix(self) -> str:
        """Nothing: the names of `backbone` are its authors' own."""
        return ""

    @property
    def classifier_names(self) -> list[str]:
        """The names of the FC layer in the network as its authors wrote it."""
        return ["fc"]

    def original(self) -> nn.Module:
        """A copy as torchvision makes it, with this FC layer."""
        network = deepcopy(self._whole[0])
        network.fc = deepcopy(self.classifier)
        return network.train(self.training)
