"""The names of the trackers, in a module of their own: reading a configuration loads no tracker."""

from typing import Literal

TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]
