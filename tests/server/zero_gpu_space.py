"""One drawing as on a ZeroGPU Space, with a stand-in for its package: run in a process of its own by test_space.py."""

import pickle
import sys
import types
from typing import Any


def main(arguments: list[str]) -> int:
    calls: list[tuple] = []
    inside: list[str] = []

    def GPU(duration: int) -> Any:
        def decorate(function):
            def called(*args):
                calls.append((duration, args))
                return function(*args)

            return called

        return decorate

    sys.modules["spaces"] = types.SimpleNamespace(GPU=GPU, __spec__=object())  # type: ignore[assignment]
    import torch

    # as the package pretends, also where no GPU is
    torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
    import studio.generation.drawing as drawing
    from studio.devices import best_device, default_precision
    from studio.generation import Recipe, generate_all
    from studio.server import zero_gpu

    assert zero_gpu.is_cpu_process() and str(best_device()) == "cpu" and default_precision() == "fp32"
    real = drawing.load_base

    def load_base(*args):
        inside.append(str(best_device()))
        torch.accelerator.current_accelerator = lambda check_available=False: None  # there is none where this test runs
        return real(*args)

    drawing.load_base = load_base
    recipe = Recipe(prompt="red apple", steps=1, count=2)
    images = list(generate_all(recipe))
    assert [image.size for image in images] == [(128, 128)] * 2
    assert calls == [(60, (recipe,))], calls  # once for both
    assert inside == ["cuda"]
    pickle.loads(pickle.dumps(recipe)), pickle.loads(pickle.dumps(images))  # they travel between processes
    print("drawn where the GPU is")
    return 0
