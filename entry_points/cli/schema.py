"""``mlelec schema``"""

HELP = (
    "Print the JSON schema of the configuration of a training. An editor that knows it completes and checks settings: "
    "'#:schema mlelec.schema.json' is the first line of such a TOML file."
)
EXAMPLE = "mlelec schema > mlelec.schema.json"


def add_arguments(parser):
    """No arguments."""


def run(arguments):
    import json

    from ase_mlelec.train.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
