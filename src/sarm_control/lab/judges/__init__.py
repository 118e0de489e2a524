"""Who judges answers in a world: the gold reward, the annotators, and the truth about latents."""
