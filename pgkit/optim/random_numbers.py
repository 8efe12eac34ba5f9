"""Random numbers for code that draws them from the generators of the process, as other people's optimizers do."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.random.mtrand as numpy_random
import torch
from torch import Tensor

_NUMPY = np.random.MT19937(0)
"""Takes the place of NumPy's generator meanwhile, because copying that one's state takes long."""


@contextmanager
def seeded_generators(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Yield a function that seeds the generators of torch, NumPy and Python; afterwards they are what they were."""
    python_state = random.getstate()
    torch_state = torch.get_rng_state()
    device_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    numpy_generator = numpy_random.get_bit_generator()
    numpy_random.set_bit_generator(_NUMPY)

    def seed(number: int) -> None:
        random.seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002 - that generator is the one that is drawn from
        torch.default_generator.manual_seed(number)
        if device_state is not None:
            torch.cuda.manual_seed(number)

    try:
        yield seed
    finally:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        if device_state is not None:
            torch.cuda.set_rng_state(device_state, device)
        numpy_random.set_bit_generator(numpy_generator)


def digest(*parts: int | Sequence[Tensor]) -> int:
    """A number from 0 to 2^63 - 1 that depends on every bit of some integers and tensors."""
    code = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, int):
            code.update(part.to_bytes(8, "little"))
        else:
            for tensor in part:
                code.update(tensor.detach().cpu().numpy().tobytes())
    return int.from_bytes(code.digest(), "little") >> 1
