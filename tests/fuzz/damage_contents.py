"""Files that are whole, of their format, and hold something else than they should: JSON, npy, HDF5 and model files."""

import copy
import hashlib
import io
import json
import struct

import h5py
import numpy as np

# in the place of anything in JSON
ANYTHING = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    1.5,
    -1.5,
    1e308,
    float("nan"),
    float("inf"),
    99999999999,
    10**30,
    10**400,
    "",
    "x",
    "nan",
    "1",
    "\0",
    "Si",
    "/",
    "tanh",
    "é" * 300,
    "a\nb",
    [],
    {},
    [[]],
    [1],
    [1, 2, 3],
    {"x": 1},
    [None] * 1000,
]
# of numbers in arrays
NUMBERS = [np.nan, np.inf, -np.inf, 1e308, -1.0, 0.0, 1e-320, 99999999999, 2**63, 0.5, 300]
TYPES = ["<f4", "<f2", ">f8", "<i8", "<u8", "|b1", "<c16", "|i1", "<U3", "|S4", "<f8"]


# JSON ----------------------------------------------------------------------------------------------------------------


def _places(value, place=()):
    yield place
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(entry, (*place, key))


def edited(value, rng):
    """A copy in which one thing is another, is missing, comes twice or is elsewhere."""
    value = {"": copy.deepcopy(value)}
    places = list(_places(value))[1:]
    *path, key = rng.choice(places[:30] if rng.random() < 0.5 else places)
    part = value
    for step in path:
        part = part[step]
    kind = rng.randrange(6)
    if kind < 3:
        part[key] = rng.choice(ANYTHING)
    elif kind == 3 and path:
        del part[key]
    elif kind == 4:
        part[key] = rng.choice([[part[key]], {"x": part[key]}, str(part[key]), [part[key]] * 2])
    elif isinstance(part[key], list) and part[key]:
        part[key] = rng.choice([part[key][:-1], part[key] * 2, part[key][::-1], part[key][1:]])
    elif isinstance(part[key], dict):
        part[key][rng.choice(["x", "type", ""])] = rng.choice(ANYTHING)
    elif isinstance(part[key], (int, float)):
        part[key] = rng.choice([-part[key], part[key] + 1, part[key] * 1000, float(part[key]), str(part[key])])
    else:
        part[key] = rng.choice(ANYTHING)
    return value[""]


def edit_json(content, rng):
    try:
        return json.dumps(edited(json.loads(content), rng)).encode()
    except (ValueError, RecursionError):
        return content


def nest(content, rng):
    """JSON in brackets so deep that parsers that call themselves run out of room."""
    depth = rng.choice([100, 100_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    return opening * depth + content + closing * depth


JSON = [edit_json] * 6 + [nest]


# npy -----------------------------------------------------------------------------------------------------------------


def _npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def edit_array(array, rng):
    """An array with a number, a shape or a type that is another."""
    kind = rng.randrange(4)
    with np.errstate(all="ignore"):
        if kind < 2 and array.dtype.kind in "fiub" and array.size:
            array = array.astype(float) if rng.random() < 0.3 else array.copy()
            number = rng.choice(NUMBERS)
            if array.dtype.kind != "f":
                info = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
                number = rng.choice([-1, 0, 1, 119, info and info.max, info and info.min]) or 0
                number = number if info and info.min <= number <= info.max else 0
            array.reshape(-1)[rng.randrange(array.size)] = number
            return array
        if kind == 2 and array.dtype.kind in "fiub":
            try:
                return array.astype(rng.choice(TYPES))
            except (ValueError, TypeError, OverflowError):
                return array
    return rng.choice(
        [
            lambda: array[..., None],
            lambda: array[None],
            lambda: array.reshape(-1),
            lambda: array.T,
            lambda: array[:0],
            lambda: array[:-1] if array.ndim else array,
            lambda: np.array(0.5),
            lambda: array[..., :-1] if array.ndim else array,
            lambda: np.repeat(array, 2),
            lambda: np.array("text"),
            lambda: np.concatenate([array, array]) if array.ndim else array,
        ]
    )()


def edit_npy(content, rng):
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception:  # damaged before
        return content
    if rng.random() < 0.05:
        return _npy(np.array([{}], dtype=object), allow_pickle=True)
    return _npy(edit_array(array, rng))


def edit_npy_header(content, rng):
    """Another shape or type than the numbers behind have."""
    try:
        file = io.BytesIO(content)
        np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception:
        return content
    shape = rng.choice(
        [
            (10**9, 10**9),
            (-1,),
            shape[::-1],
            (*shape, 1),
            (),
            (0,),
            (2**62, 4),
            (99999999999,),
            shape * 2,
            (True,),
            (1.5,),
            "x",
            [1, 2],
            (10**30,),
        ]
    )
    described = rng.choice(
        [
            "<f8",
            "<f8",
            "|O",
            "|V8",
            "<M8[s]",
            ">f4",
            "<f16",
            "|b1",
            "<q",
            "garbage",
            [("a", "<f8")],
            "<U99999",
            dtype.str,
        ]
    )
    write = rng.choice([repr, lambda h: repr(h)[:-9], lambda h: "(" * 500, lambda h: repr(h).replace("'shape'", "'x'")])
    header = write({"descr": described, "fortran_order": rng.choice([fortran, not fortran, 1, None]), "shape": shape})
    header = header.encode() + b" " * (-len(header) % 64) + b"\n"
    version = rng.choice([b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"])
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", rng.choice([len(header), len(header), 65535]))
    return b"\x93NUMPY" + version + length + header + content[file.tell() :]


NPY = [edit_npy, edit_npy, edit_npy_header]


# HDF5 ----------------------------------------------------------------------------------------------------------------


def edit_hdf5(content, rng):
    """Another attribute, dataset or group in the place of one of the file's."""
    file = io.BytesIO(content)
    try:
        with h5py.File(file, "r+") as opened:
            names = ["/"]
            opened.visit(names.append)
            item = opened[rng.choice(names)]
            if item.attrs and (item.name == "/" or rng.random() < 0.3):
                _edit_attribute(item.attrs, rng)
            elif item.name != "/":
                _edit_item(item, rng)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # damaged before, or no such change
        return content
    return file.getvalue()


def _edit_attribute(attributes, rng):
    name = rng.choice(sorted(attributes))
    value = attributes[name]
    kind = rng.randrange(8)
    if kind == 0:
        del attributes[name]
    elif kind == 1:
        attributes[name] = rng.choice(
            [
                0,
                -1,
                1.5,
                np.nan,
                10**18,
                "",
                "x",
                b"x",
                np.zeros(3),
                np.zeros((0,)),
                ["a", "b"],
                h5py.Empty("f8"),
                np.bytes_(b"\xff"),
                True,
            ]
        )
    elif isinstance(value, str) and value[:1] in ("{", "["):
        attributes[name] = (
            json.dumps(edited(json.loads(value), rng)) if kind < 7 else value[: rng.randrange(len(value))]
        )
    elif np.ndim(value):
        attributes[name] = edit_array(np.asarray(value), rng)
    else:
        attributes[name] = rng.choice([0, -1, 2, 10**18, np.nan, np.inf, "", "x"])


def _edit_item(item, rng):
    parent, name = item.parent, item.name.rpartition("/")[2]
    whole = isinstance(item, h5py.Dataset) and (item.size or 0) < 10**6  # not what an edit before claimed
    value = item[()] if whole else None
    options = dict(compression=item.compression, shuffle=item.shuffle) if value is not None and item.chunks else {}
    kind = rng.randrange(12)
    attributes = dict(item.attrs)
    if kind == 1:
        parent.copy(item, parent, name=f"{name}_", expand_refs=False)
        return
    if kind == 2:
        parent[f"another_{rng.randrange(9)}"] = rng.choice([0.5, "x", np.arange(3)])
        return
    del parent[name]
    if kind == 0:
        return
    if kind == 3:
        parent.create_group(name)
    elif kind == 4:
        parent[name] = rng.choice(
            [
                h5py.SoftLink("/nowhere"),
                h5py.SoftLink("/"),
                h5py.ExternalLink("x.h5", "/"),
                h5py.SoftLink(f"{parent.name}/{name}"),
            ]
        )
    elif kind == 5:
        # a claim alone: nothing of it is stored
        shape = rng.choice([(10**6, 10**6), (10**9,), (2**40,), (10**5, 3)])
        parent.create_dataset(
            name,
            shape,
            rng.choice(["f8", "i8", "u2"]),
            **rng.choice([{}, {"chunks": (1,) * len(shape)}, {"chunks": True, "compression": "gzip"}]),
        )
    elif kind == 6:
        parent.create_dataset(
            name,
            data=rng.choice([h5py.Empty("f8"), "text", np.array([b"a", b"b"]), 1 + 2j, np.zeros(2, [("a", "f8")])]),
        )
    elif value is not None and isinstance(value, (np.ndarray, np.generic)):
        array = edit_array(np.asarray(value), rng)
        parent.create_dataset(name, data=array, **(options if array.ndim and array.size else {}))
    else:
        parent[name] = rng.choice([0, -1, np.nan, np.arange(4.0), "x"])
    if name in parent and kind not in (3, 4) and rng.random() < 0.9:
        parent[name].attrs.update(attributes)


HDF5 = [edit_hdf5]


# model files and checkpoints -----------------------------------------------------------------------------------------


def edit_safetensors(content, rng):
    """Another header, of the format or of ours; half of the time with a checksum that fits."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
        ours = header["__metadata__"]["ase_mlelec"]
    except (ValueError, KeyError, TypeError, struct.error):
        return content
    if rng.random() < 0.25:
        header = edited(header, rng)
    elif rng.random() < 0.3:
        for _ in range(rng.choice([1, 20])):
            place = rng.randrange(len(data) // 8)
            data[8 * place : 8 * place + 8] = struct.pack("<d", rng.choice(NUMBERS))
    else:
        ours = json.dumps(edited(json.loads(ours), rng))
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"]["ase_mlelec"] = _with_digest(ours, header, data) if rng.random() < 0.5 else ours
    text = json.dumps(header).encode()
    return struct.pack("<Q", rng.choice([len(text), len(text), len(text), 2**62])) + text + bytes(data)


def _with_digest(ours, header, data):
    """Our header with the checksum that this package would give it, so that what it says is believed so far."""
    from safetensors.torch import load

    from ase_mlelec.model_file.read import digest

    try:
        text = json.dumps(header).encode()
        state = load(struct.pack("<Q", len(text)) + text + bytes(data))
        told = json.loads(ours)
        told.pop("digest")
        rest = json.dumps(told)
        return f'{{"digest": "{digest(rest, state)}", {rest[1:]}'
    except Exception:  # no such header, or no such arrays
        return ours


SAFETENSORS = [edit_safetensors]


def edit_checkpoint(content, rng):
    """Damaged inside, with a checksum that fits."""
    from ase_mlelec.train.checkpoint import DIGEST, MAGIC

    inner = bytearray(content[: -len(MAGIC) - DIGEST])
    for _ in range(rng.choice([1, 5, 50])):
        inner[rng.randrange(len(inner))] = rng.randrange(256)
    return bytes(inner) + MAGIC + hashlib.blake2b(inner, digest_size=DIGEST).digest()


CHECKPOINT = [edit_checkpoint]
