"""The policy: a language model with adapters and a critic, and its layers sharded over processes."""
