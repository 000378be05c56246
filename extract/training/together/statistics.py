"""BatchNorm in several processes: over the whole batch on GPUs, over each process's images on CPUs."""

import torch
from torch import nn

from extract.networks.parts import Network
from extract.training.together.ranks import Ranks
from store.notes import note

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # a layer derived from them may do more


def with_shared_statistics(network: Network, ranks: Ranks, device: torch.device) -> Network:
    """The network, with statistics over the whole batch where that is possible, and the first's weights.

    Args:
        network: on the device; its layers may be replaced.
        ranks: the processes.
        device: SyncBatchNorm needs a GPU.
    """
    if ranks.world == 1:
        return network
    ranks.as_first(network)
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    own = [m for m in norms if device.type != "cuda" or type(m) not in PLAIN]
    if own:
        note(
            f"{len(own)} BatchNorm layers take their statistics over each process's own share of a batch (on "
            "GPUs over the whole batch), so results are not quite those of a single process"
        )
    return synchronised(network) if device.type == "cuda" else network


def synchronised(network: nn.Module) -> nn.Module:
    """The network, its plain BatchNorm layers replaced by SyncBatchNorm, with the same names and tensors.

    torch's own function replaces derived layers too, and what they do besides would be lost.
    """
    plain = [module for module in network.modules() if type(module) in PLAIN]
    shared = {id(module): nn.SyncBatchNorm.convert_sync_batchnorm(module) for module in plain}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if id(module) in shared:
            network.set_submodule(name, shared[id(module)])
    return network
