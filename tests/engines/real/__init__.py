"""Client code of the engines themselves, run on a CPU against `sarm serve`; see `make test-engines`."""
