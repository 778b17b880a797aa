"""Which files a path stands for: one, or the shards of a checkpoint that an index lists."""

import json
from pathlib import Path

INDEX_SUFFIX = ".safetensors.index.json"
INDEX = "model" + INDEX_SUFFIX


def shard_paths(path):
    """The files of a model.

    Parameters
    ----------
    path : str or path-like
        A safetensors file, the index of a sharded checkpoint (`INDEX`), or a folder that holds one of either.

    Returns
    -------
    paths : list of Path
        In the order of their names.
    weight_map : dict of str to str, or None
        The name of the file of each tensor, as the index has it.

    Raises
    ------
    OSError
        Something cannot be read.
    ValueError
        The folder has several or no models, or the index is damaged.
    """
    path = model_path(path)
    if not path.name.endswith(".json"):
        return [path], None
    try:
        weight_map = json.loads(path.read_text("utf-8"), object_pairs_hook=_without_contradictions)["weight_map"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no index of a checkpoint ({error!r})") from None
    if not isinstance(weight_map, dict) or not weight_map or not all(map(_is_file_name, weight_map.values())):
        raise ValueError(f"{path}: weight_map: takes a file name, without a folder, for each of one or more tensors")
    return [path.with_name(name) for name in sorted(set(weight_map.values()))], weight_map


def model_path(path):
    """The file or the index that a path stands for, which may be that of a folder."""
    path = Path(path)
    return _model_in(path) if path.is_dir() else path


def listed_tensors(path, weight_map, headers):
    """The tensors of each file that belong to a model: of shards those that the index has there.

    Shards may hold others: what another shard has in its place, or a part of the model that this index leaves out.

    Parameters
    ----------
    path : str or path-like
        For errors.
    weight_map : dict of str to str, or None
        As `shard_paths` gives it.
    headers : dict of str to Header
        Of each file.

    Returns
    -------
    listed : dict of str to list of str
        The names of tensors of each file, in its order.
    warnings : list of str
        What is said of the others, if there are any.

    Raises
    ------
    ValueError
        A shard lacks what the index has there.
    """
    if weight_map is None:
        return {file: list(header.tensors) for file, header in headers.items()}, []
    for name, file in weight_map.items():
        if name not in headers[file].tensors:
            raise ValueError(f"{path}: {name}: is not in {file}, where the index has it")
    listed = {file: [name for name in header.tensors if weight_map.get(name) == file]
              for file, header in headers.items()}
    others = sum(len(header.tensors) for header in headers.values()) - len(weight_map)
    if not others:
        return listed, []
    return listed, [f"{path}: {others} tensor{'s' * (others > 1)} that the index does not list where "
                    f"{'they are' if others > 1 else 'it is'} will be left out"]


def index_of(weight_map, total_size):
    """What the index of a sharded checkpoint holds, as JSON has it."""
    return {"metadata": {"total_size": total_size}, "weight_map": weight_map}


def _model_in(folder):
    for pattern in ("*" + INDEX_SUFFIX, "*.safetensors"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{folder}: has {len(found)} models, {', '.join(path.name for path in found)}; name one")
    raise ValueError(f"{folder}: has no *.safetensors file")


def _without_contradictions(pairs):
    """An object of an index, which says one thing of each name."""
    entries = dict(pairs)
    if any(entries[name] != entry for name, entry in pairs):
        raise ValueError("an entry is there twice")
    return entries


def _is_file_name(name):
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"} \
        and not any("\ud800" <= character <= "\udfff" for character in name)  # halves of surrogate pairs
