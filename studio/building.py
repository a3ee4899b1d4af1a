"""One thread at a time makes a model or hangs layers on one.

While transformers, diffusers and accelerate load a model, they put other functions in the place of torch's initialisers
and of nn.Module's `register_parameter`, for the whole process: what another thread makes meanwhile has no numbers.
"""

import os
import threading

building = threading.RLock()  # taken after the device (see `jobs`), where both are

# A process is forked only while no other thread builds: in the child the lock would stay taken for ever (ZeroGPU forks
# the process that draws).
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=building.acquire, after_in_parent=building.release, after_in_child=building.release)
