"""Which latents a reward model pays for: exact effects, tests clustered by prompt, named lists."""
