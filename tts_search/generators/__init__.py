"""Engines that continue token sequences, one file each; importing this package imports none of them."""
