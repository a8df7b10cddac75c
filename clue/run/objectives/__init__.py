"""What a run learns: the contrastive encoder or the next-item decoder."""
