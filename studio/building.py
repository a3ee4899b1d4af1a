"""One thread at a time makes a model or hangs layers on one.

While transformers, diffusers and accelerate load a model, they put other functions in the place of torch's initialisers
and of nn.Module's `register_parameter`, for the whole process: what another thread makes meanwhile has no numbers.
"""

import threading

building = threading.RLock()  # taken after the device (see `jobs`), where both are
