"""The policy: a language model with adapters, its critic, and its parts on several processes."""
