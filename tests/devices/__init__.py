"""Tests on a pretend accelerator (see `second_device`): what a GPU would refuse raises here as well."""
