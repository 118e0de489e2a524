"""What is watched while a policy trains: figures, ledger, evaluations, and checks that raise an alarm."""
