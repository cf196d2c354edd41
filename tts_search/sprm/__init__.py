"""The SPRM head: a binary classifier over hidden states that the policy has computed anyway.

What the engines, the scorer and training share: the module, its config, and where and how both lie on disk. It does
not know where hidden states come from, nor which of them are steps.
"""
