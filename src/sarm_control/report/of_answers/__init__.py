"""Pages on given answers: what edits do to rewards, which candidate wins, which latents fire."""
