"""How fast and how small: side by side with rivals, equality of loss and gradient shown first."""
