"""What a frozen vector is compared with."""
