"""Whole-volume inference: every case once, in its own shape, independent of how it is batched."""

import torch

from workflow.evaluation import predict as module
from workflow.evaluation.predict import predict


class Pointwise(torch.nn.Module):
    """Logits that depend on the voxel alone, so that windows and batches cannot matter."""

    def forward(self, x):
        return torch.cat([x, -x, 2 * x], 1)


def run(images, **options):
    return dict(
        predict(
            Pointwise(),
            {name: tuple(image.shape[1:]) for name, image in images.items()},
            images.__getitem__,
            window=(8, 8, 8),
            overlap=0.25,
            device=torch.device("cpu"),
            **options,
        )
    )


def test_each_case_keeps_its_shape_and_its_values():
    torch.manual_seed(0)
    shapes = {"a": (8, 8, 8), "b": (9, 12, 10), "c": (8, 8, 8), "small": (4, 8, 5)}
    images = {name: torch.randn(1, *shape) for name, shape in shapes.items()}
    logits = run(images)
    assert set(logits) == set(images)
    for name, image in images.items():
        assert torch.allclose(logits[name], torch.cat([image, -image, 2 * image]), atol=1e-5)


def test_cases_of_one_shape_share_batches_of_bounded_size(monkeypatch):
    monkeypatch.setattr(module, "VOXELS_PER_BATCH", 2 * 8**3)
    images = {str(i): torch.full((1, 8, 8, 8), float(i)) for i in range(5)}
    logits = run(images)
    assert all(logits[str(i)][0].eq(i).all() for i in range(5))
    shapes = {name: tuple(image.shape[1:]) for name, image in images.items()} | {"9": (9, 8, 8)}
    assert list(module.batches(shapes)) == [["0", "1"], ["2", "3"], ["4"], ["9"]]
