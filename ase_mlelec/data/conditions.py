"""What labels depend on besides the structure, in words."""

CHARGED = "on which its energy depends, and which no model knows: leave neutral cells and cells of other charges apart"
IN_FIELD = "it is in an electric field, on which its labels depend, and which no model knows: keep other fields apart"
