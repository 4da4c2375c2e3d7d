"""Parts of a model file: header, arrays, checks. Nothing here needs the class Model; ``bundle`` loads models."""
