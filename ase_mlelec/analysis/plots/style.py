"""Colors and opacities that all figures share."""

COLORS = ("#1f5a8a", "#e0a030", "#c8343f", "#3f8f6b", "#7a5195", "#666666")
SHADE = 0.22  # opacity of bands behind lines
