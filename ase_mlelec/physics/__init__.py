"""Physics as functions of tensors: no network, no Atoms and no file in here."""
