"""Networks, and the ways to run them. Importing this package loads nothing heavy."""

import os

# Torch's threads otherwise spin while they wait: beside one busy process a network was 6 to 25 times slower.
# This is read when torch is first imported, so it has to stand here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
