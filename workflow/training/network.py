"""The network of a study, with the same initial weights for every loss of a seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from workflow.study import StudyError

if TYPE_CHECKING:
    from monai.networks.nets import UNet


def build(
    in_channels: int,
    classes: int,
    *,
    channels: Sequence[int],
    strides: Sequence[int | tuple[int, int, int]],
    num_res_units: int,
    norm: str,
    seed: int,
    class_frequencies: Sequence[float] | None = None,
) -> UNet:
    """A MONAI ``UNet`` for 3-D volumes: logits (B, classes, x, y, z), no activation.

    The global generator is seeded here, so that the weights depend on the seed and the
    architecture alone. ``class_frequencies`` starts the output bias at their logarithms.
    """
    # here, because it takes seconds that those who only ask for a device are spared
    from monai.networks.nets import UNet

    torch.manual_seed(seed)
    network = UNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=classes,
        channels=channels,
        strides=strides,  # type: ignore[arg-type]  # MONAI's says int, its text one an axis too
        num_res_units=num_res_units,
        norm=norm,
    )
    if class_frequencies is not None:
        bias = [p for name, p in network.named_parameters() if name.endswith("bias")][-1]
        if bias.shape != (classes,):
            raise RuntimeError(f"the last bias has shape {tuple(bias.shape)}, not ({classes},)")
        with torch.no_grad():
            bias.add_(torch.tensor([math.log(f) for f in class_frequencies]))
    return network


def weights_sha256(network: torch.nn.Module) -> str:
    """Digest of every parameter and buffer, in order, with its name."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def accelerator(wish: str = "auto") -> torch.device:
    """The device that a study's ``training.accelerator`` names; ``auto`` takes the fastest."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wish == "auto":
        wish = next(name for name, there in available.items() if there)
    if not available[wish]:
        raise StudyError(f"training.accelerator: this machine has no '{wish}'")
    return torch.device(wish)


def precision(device: torch.device) -> torch.dtype:
    """The type in which the layers compute: bfloat16 on CUDA, elsewhere float32.

    A CPU that has bfloat16 stays with float32 too, so that its numbers are those of one that has
    not.
    """
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """The context of a forward pass in the device's :func:`precision`; weights stay float32."""
    dtype = precision(device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
